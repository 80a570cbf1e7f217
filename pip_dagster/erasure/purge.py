"""Purges contents that are past `privacy.retention.content`: as an erasure, place by place, of whole partitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.erasure.certificate import certify
from pip_dagster.erasure.contents import ContentsPlace, due_sql, released_sql
from pip_dagster.erasure.erase import empty_places, lost, places_behind, vouch
from pip_dagster.erasure.opened import opened
from pip_dagster.erasure.place import ErasurePlace, ErasureRequest, Removed
from pip_dagster.erasure.unfinished import Unfinished, unfinished
from pip_dagster.errors import ErasureError, NoWarehouseError
from pip_dagster.ledger.record import new_id
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.privacy.retention import content_before, evidence_before
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project

_WHY = "privacy.retention.content"


@dataclass(frozen=True)
class _PurgeEntry:
    """One row of `ledger.erasures`, of a purge."""

    erasure_id: str
    pipelines: list[str]
    content_before: datetime
    made_by: str
    made_at: datetime
    received_at: datetime
    why: str = _WHY
    kind: str = "purge"
    state: str = "running"


@dataclass(frozen=True)
class Due:
    """What is past its clock.

    Attributes:
        partitions: Pipeline → the partitions whose contents are to be purged, in order of time.
        evidence: Pipeline → how many partitions are past `retention.evidence`: nothing removes it.
        running: The purge that was interrupted, if one was.
        wider: A purge that was interrupted, of more pipelines than these, and its pipelines.
        not_anchored: Purges of these that are done, and that no declared anchor vouches for.
    """

    partitions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    evidence: Mapping[str, int] = field(default_factory=dict)
    running: str | None = None
    wider: tuple[str, Sequence[str]] | None = None
    not_anchored: Sequence[str] = ()

    @property
    def anything(self) -> bool:
        """Whether a purge has something to do."""
        return bool(self.partitions or self.running or self.wider or self.not_anchored)


@dataclass(frozen=True)
class Purged:
    """A purge that is done: of each partition how many rows it lost, and of each place what it lost."""

    purge_id: str
    partitions: Mapping[str, Mapping[str, int]]
    steps: Sequence[tuple[str, Removed, str]]
    resumed: bool


def due(project: Project, pipelines: Sequence[Pipeline], *, now: datetime | None = None) -> Due:
    """What is past its clock, by one short read.

    Raises:
        WarehouseError: the warehouse cannot be read.
    """
    before = _before(pipelines, now or clock.now())
    if not before:
        return Due()
    select = (
        f"SELECT pipeline, partition_key FROM ({due_sql(before)} UNION ALL BY NAME {released_sql(before)}) "
        "GROUP BY ALL ORDER BY pipeline, min(partition_start), partition_key"
    )
    found: dict[str, list[str]] = {}
    try:
        with workspace(threads=1) as con, reading(con, project, purpose="what is to be purged"):
            running, wider = _running(con, before), _wider(con, before)
            not_anchored = [
                each.erasure_id
                for each in _purges(con, anchored=project.anchors is not None)
                if each.lacks_anchor and {*each.pipelines} <= before.keys()
            ]
            for pipeline, key in con.execute(select).fetchall():
                found.setdefault(pipeline, []).append(key)
            evidence = {
                each.spec.name: count
                for each in pipelines
                if (at := evidence_before(each.spec, now or clock.now()))
                for (count,) in con.execute(
                    "SELECT count(DISTINCT partition_key) FROM ledger.scorings WHERE pipeline = "
                    f"{literal(each.spec.name)} AND partition_end <= {literal(at.isoformat())}::TIMESTAMPTZ",
                ).fetchall()
                if count
            }
    except NoWarehouseError:
        return Due()
    return Due(found, evidence, running.erasure_id if running else None, wider, not_anchored)


def purge(
    project: Project,
    pipelines: Sequence[Pipeline],
    *,
    actor: str,
    found: Due | None = None,
    others: Sequence[ErasurePlace] = (),
    progress: Callable[[str], object] = lambda text: None,
) -> Purged | None:
    """Purge what is past its clock; None where nothing is. An interrupted purge of these pipelines is completed first.

    `found`: what `due` found, where it was read before.

    Raises:
        ErasureError: a place could not be emptied; what is done is recorded, and the same call again resumes. Or these
            are purged, and an interrupted purge of more pipelines is not.
        WarehouseError: the warehouse cannot be written.
    """
    now = clock.now()
    found = found or due(project, pipelines, now=now)
    done = None
    for purge_id in found.not_anchored:
        vouch(project, purge_id, progress)
    if found.partitions or found.running:
        done = _purge(project, pipelines, now, actor=actor, others=others, progress=progress)
    if found.wider:
        purge_id, names = found.wider
        raise ErasureError(
            f"The purge {purge_id} of {', '.join(names)} was interrupted, and copies of what it removed may be left. "
            f"`pip-dagster purge {' '.join(names)}` completes it; all must declare `privacy.retention.content`. What "
            f"was past its clock in {', '.join(each.spec.name for each in pipelines)} is purged."
        )
    return done


def _purge(
    project: Project,
    pipelines: Sequence[Pipeline],
    now: datetime,
    *,
    actor: str,
    others: Sequence[ErasurePlace],
    progress: Callable[[str], object],
) -> Purged:
    before = _before(pipelines, now)
    purge_id, resumed, names = _begin(project, before, actor)
    chosen = [each for each in pipelines if each.spec.name in names]
    request = ErasureRequest(purge_id, "purge", _WHY)
    contents = ContentsPlace(project, chosen, {each: before[each] for each in names}, actor)
    places = [contents, *places_behind(project, chosen, actor, others)]
    steps = empty_places(project, request, places, progress=progress)
    certify(project, purge_id, [each.name for each in places])
    vouch(project, purge_id, progress)
    return Purged(purge_id, lost(project, purge_id), steps, resumed)


def _before(pipelines: Sequence[Pipeline], now: datetime) -> dict[str, datetime]:
    found = {each.spec.name: content_before(each.spec, now) for each in pipelines}
    return {name: at for name, at in found.items() if at}


def _purges(con: DuckDBPyConnection, *, anchored: bool = False) -> list[Unfinished]:
    return [each for each in unfinished(con, anchored=anchored) if each.kind == "purge"]


def _running(con: DuckDBPyConnection, before: Mapping[str, datetime]) -> Unfinished | None:
    """The purge of these pipelines, or of some of them, that was interrupted."""
    return next((each for each in _purges(con) if {*each.pipelines} <= before.keys()), None)


def _wider(con: DuckDBPyConnection, before: Mapping[str, datetime]) -> tuple[str, Sequence[str]] | None:
    """A purge that was interrupted, of some of these pipelines and of others."""
    of = ((each.erasure_id, each.pipelines) for each in _purges(con))
    return next((each for each in of if {*each[1]} & before.keys() and {*each[1]} - before.keys()), None)


def _begin(project: Project, before: Mapping[str, datetime], actor: str) -> tuple[str, bool, list[str]]:
    """The id of the purge, whether it had begun before, and the pipelines that it is about."""
    with opened(project) as con, transaction(con):
        if found := _running(con, before):
            return found.erasure_id, True, list(found.pipelines)
        purge_id, now = new_id(), clock.now()
        entry = _PurgeEntry(purge_id, sorted(before), max(before.values()), actor, now, now)
        insert_rows(con, "erasures", [entry])
    return purge_id, False, sorted(before)
