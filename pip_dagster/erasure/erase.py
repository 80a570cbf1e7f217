"""Erases a person: who must not return is noted first, then every place is emptied and verified, one after the other.

A place that is done is a row of `ledger.erasure_steps`. The same request again goes on behind the last of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pip_dagster import clock
from pip_dagster.erasure.certificate import certificate_of, certify
from pip_dagster.erasure.files import FilePlace, PublishedPlace
from pip_dagster.erasure.gate_reports import GateReportsPlace
from pip_dagster.erasure.golden import GoldenPlace
from pip_dagster.erasure.known import check_known, request_of
from pip_dagster.erasure.lake import LakePlace
from pip_dagster.erasure.opened import opened
from pip_dagster.erasure.outside import keep_certificate, keep_request
from pip_dagster.erasure.place import ErasurePlace, ErasureRequest, Removed
from pip_dagster.erasure.rows import WarehousePlace
from pip_dagster.erasure.targets import TargetsPlace
from pip_dagster.erasure.unfinished import ANCHOR
from pip_dagster.erasure.wish import Wish, begin, of_subject
from pip_dagster.errors import NoWarehouseError
from pip_dagster.evidence.anchor import anchor_after
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.privacy.suppressed import tokens
from pip_dagster.privacy.texts import check_texts
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project


_ABSENT = "its rows are then refused from now on, with a certificate that nothing was there"


@dataclass(frozen=True)
class _StepEntry:
    """One row of `ledger.erasure_steps`."""

    erasure_id: str
    pipeline: str | None
    place: str
    method: str
    rows_before: int
    rows_removed: int
    rows_after: int
    verified: str
    remains: str | None
    remains_until: datetime | None
    made_at: datetime


@dataclass(frozen=True)
class Erased:
    """What was done: of each place what it lost; `resumed` where an earlier attempt had begun."""

    erasure_id: str
    partitions: dict[str, dict[str, int]]
    steps: list[tuple[str, Removed, str]]
    resumed: bool


def concerned(project: Project, pipelines: Sequence[Pipeline], subject: str) -> dict[str, dict[str, int]]:
    """Pipeline → partition → how many stored rows are of the subject.

    Raises:
        DeclarationError: a pipeline declares no subject, or a secret is missing.
        WarehouseError: the warehouse cannot be read.
    """
    request = request_of(pipelines, subject)
    keys = {each.spec.name: each.spec.features.key for each in pipelines}
    return WarehousePlace(project, keys, "").partitions(request)


def check(project: Project, pipelines: Sequence[Pipeline], wish: Wish) -> None:
    """Refuse a request whose texts name the subject, and one of a subject that nothing names; nothing is changed.

    Raises:
        DeclarationError: a text has the identifier, a pipeline declares no subject, or a secret is missing.
        ErasureError: nothing names the subject.
        WarehouseError: the warehouse cannot be read.
    """
    check_texts(pipelines, wish.subject, {"--why": wish.why, "--ground": wish.ground, "--asked-by": wish.asked_by})
    if not wish.absent:
        check_known(project, pipelines, wish.subject, otherwise=_ABSENT)


def erase(
    project: Project,
    pipelines: Sequence[Pipeline],
    wish: Wish,
    *,
    others: Sequence[ErasurePlace] = (),
    progress: Callable[[str], object] = lambda text: None,
) -> Erased:
    """Erase a subject's rows from every place; `others` are emptied last.

    Nothing is removed before `ledger.suppressions` has the subject, so no run can bring it back. From the transaction
    of the warehouse's tables on there is no way back, only forward: the same call again resumes.

    Raises:
        DeclarationError: a pipeline declares no subject, a secret is missing, or a text has the identifier.
        ErasureError: nothing names the subject, and nothing was changed; or a place could not be emptied, and what is
            done is recorded.
        WarehouseError: the warehouse cannot be written.
    """
    place = _rows_place(project, pipelines, wish.actor, progress)
    request = request_of(pipelines, wish.subject, why=wish.why)  # refused before anything is noted
    check(project, pipelines, wish)
    of = {each.spec.name: tokens(each, wish.subject) for each in pipelines}
    if (certified := _not_anchored(project, of)) and not place.count(request):
        keep_certificate(project, certificate_of(project, certified))
        vouch(project, certified, progress)
        return Erased(certified, lost(project, certified), [], resumed=True)
    erasure_id, resumed = begin(project, pipelines, wish, of)
    received = wish.received_at.isoformat() if wish.received_at else None
    given = {"why": wish.why, "ground": wish.ground, "asked_by": wish.asked_by, "received_at": received}
    keep_request(project, pipelines, erasure_id, wish.subject, given)
    request = replace(request, erasure_id=erasure_id)
    return carry_out(project, pipelines, request, wish.actor, resumed=resumed, others=others, progress=progress)


def carry_out(
    project: Project,
    pipelines: Sequence[Pipeline],
    request: ErasureRequest,
    actor: str,
    *,
    resumed: bool,
    others: Sequence[ErasurePlace],
    progress: Callable[[str], object],
) -> Erased:
    """Empty every place of an erasure that the ledger has, and certify it. Raises as `erase`."""
    place, erasure_id = _rows_place(project, pipelines, actor, progress), request.erasure_id
    # Golden rows are known by the rows that are still stored.
    places: list[ErasurePlace] = [GoldenPlace(project, actor, pipelines), place]
    places += places_behind(project, pipelines, actor, others)
    # Rows that a run stored behind the places' backs are in all of them again.
    everything = bool(resumed and place.count(request))
    steps = empty_places(project, request, places, everything=everything, progress=progress)
    place.verify(request)  # a run that had begun before may have stored rows meanwhile
    keep_certificate(project, certify(project, erasure_id, [each.name for each in places]))
    vouch(project, erasure_id, progress)
    return Erased(erasure_id, lost(project, erasure_id), steps, resumed)


def places_behind(
    project: Project, pipelines: Sequence[Pipeline], actor: str, others: Sequence[ErasurePlace]
) -> list[ErasurePlace]:
    """The places that are emptied once the warehouse's tables are, in their order."""
    places: list[ErasurePlace] = [PublishedPlace(project), GateReportsPlace(project)]
    places += [TargetsPlace(pipeline, actor) for pipeline in pipelines if pipeline.spec.deliver]
    return [*places, *others, FilePlace(project, actor) if isinstance(project.warehouse, Path) else LakePlace(project)]


def empty_places(
    project: Project,
    request: ErasureRequest,
    places: Sequence[ErasurePlace],
    *,
    everything: bool = False,
    progress: Callable[[str], object] = lambda text: None,
) -> list[tuple[str, Removed, str]]:
    """Empty, verify and record the places that are not recorded yet, or all of them again; of each what it lost.

    Raises:
        ErasureError: a place could not be emptied.
    """
    steps = list[tuple[str, Removed, str]]()
    done = set[str]() if everything else _done(project, request.erasure_id)
    verb = "purging" if request.kind == "purge" else "erasing"
    for each in places:
        if each.name in done:
            continue
        progress(f"{verb}: {each.name}")
        request = replace(request, partitions=_partitions(project, request.erasure_id))
        removed = each.remove(request)
        verified = each.verify(request)
        _note(project, request.erasure_id, each.name, removed, verified)
        steps.append((each.name, removed, verified))
    return steps


def _rows_place(
    project: Project, pipelines: Sequence[Pipeline], actor: str, progress: Callable[[str], object]
) -> WarehousePlace:
    keys = {each.spec.name: each.spec.features.key for each in pipelines}
    return WarehousePlace(project, keys, actor, pipelines=pipelines, progress=progress)


def _not_anchored(project: Project, of: Mapping[str, Sequence[tuple[str, str]]]) -> str | None:
    """The newest erasure of the subject that is certified, if it was interrupted before an anchor vouched for it."""
    try:
        found = _read(project, of_subject(of, "done"))
    except NoWarehouseError:
        return None
    return str(found[-1][0]) if found and ANCHOR not in _done(project, str(found[-1][0])) else None


def vouch(project: Project, erasure_id: str, progress: Callable[[str], object]) -> None:
    """Vouch for what this erasure rewrote, and note that: whoever repeats an interrupted call then does it."""
    if anchor_after(project, progress, erasure_id=erasure_id):
        where = "its entries are vouched for in every declared place" if project.anchors else "no anchors are declared"
        _note(project, erasure_id, ANCHOR, Removed(0, 0, 0, "the audit was anchored"), where)


def _done(project: Project, erasure_id: str) -> set[str]:
    return {row[0] for row in _read(project, f"SELECT place FROM ledger.erasure_steps WHERE {_of(erasure_id)}")}


def _partitions(project: Project, erasure_id: str) -> dict[str, list[str]]:
    select = (
        f"SELECT DISTINCT pipeline, partition_key FROM ledger.erased_partitions WHERE {_of(erasure_id)} ORDER BY ALL"
    )
    found: dict[str, list[str]] = {}
    for pipeline, key in _read(project, select):
        found.setdefault(pipeline, []).append(key)
    return found


def lost(project: Project, erasure_id: str) -> dict[str, dict[str, int]]:
    """Pipeline → partition → how many rows it lost."""
    select = (
        f"SELECT pipeline, partition_key, sum(rows_removed)::BIGINT FROM ledger.erased_partitions "
        f"WHERE {_of(erasure_id)} GROUP BY ALL ORDER BY ALL"
    )
    found: dict[str, dict[str, int]] = {}
    for pipeline, key, rows in _read(project, select):
        found.setdefault(pipeline, {})[key] = rows
    return found


def _note(project: Project, erasure_id: str, place: str, removed: Removed, verified: str) -> None:
    entry = _StepEntry(
        *(erasure_id, None, place, removed.method, removed.rows_before, removed.rows_removed, removed.rows_after),
        *(verified, removed.remains, removed.remains_until, clock.now()),
    )
    with opened(project) as con, transaction(con):
        insert_rows(con, "erasure_steps", [entry])


def _read(project: Project, select: str) -> list[tuple[Any, ...]]:
    with workspace(threads=1) as con, reading(con, project, purpose="erasing"):
        return con.execute(select).fetchall()


def _of(erasure_id: str) -> str:
    return f"erasure_id = {literal(erasure_id)}"
