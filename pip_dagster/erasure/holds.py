"""Legal holds: rows of a subject that an erasure or a purge takes away are kept aside until the hold is released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pip_dagster import clock
from pip_dagster.erasure.held import STATES
from pip_dagster.erasure.known import check_known
from pip_dagster.erasure.opened import recording
from pip_dagster.erasure.outside import KeptHold, KeptPipeline, instant, keep_hold, key_of
from pip_dagster.errors import ErasureError, NotFoundError, NoWarehouseError
from pip_dagster.ledger import audit
from pip_dagster.ledger.record import dicts, new_id
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.privacy.keys import keep_check, keys_of
from pip_dagster.privacy.suppressed import check_person, stored_values
from pip_dagster.privacy.texts import check_text_of, check_texts
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.erased import hold_file, repeating

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project

_ABSENT = "the hold then waits for its rows"
_LIST = f"""
  SELECT e.erasure_id AS hold_id, s.state, e.pipelines, e.why, e.held_until, e.made_by, min(e.made_at) AS placed_at,
         (SELECT count(*) FROM ledger.held_rows r WHERE r.hold_id = e.erasure_id) AS rows_kept
  FROM ledger.erasures e JOIN ({STATES}) s ON s.hold_id = e.erasure_id WHERE e.state = 'held' GROUP BY ALL
  ORDER BY placed_at
"""


@dataclass(frozen=True)
class _HoldEntry:
    """One row of `ledger.erasures`, of a hold."""

    erasure_id: str
    pipelines: list[str]
    state: str
    why: str
    held_until: datetime | None
    made_by: str
    made_at: datetime
    kind: str = "hold"


@dataclass(frozen=True)
class _HeldEntry:
    """One row of `ledger.held_subjects`."""

    hold_id: str
    pipeline: str
    subject: str
    key_version: str
    made_at: datetime


def place_hold(
    project: Project,
    pipelines: Sequence[Pipeline],
    subject: str,
    *,
    why: str,
    by: str,
    until: datetime | None = None,
    absent: bool = False,
) -> str:
    """Have erasures and purges keep a subject's rows, until the hold is released; its id.

    With `absent`, of a subject too that nothing names yet.

    Raises:
        DeclarationError: a pipeline declares no subject, a secret is missing, or `why` has the identifier.
        ErasureError: nothing names the subject.
        WarehouseError: the warehouse, or the folder beside it, cannot be written.
    """
    for pipeline in pipelines:
        check_person(pipeline, subject)
    check_texts(pipelines, subject, {"--why": why})
    if not absent:
        with repeating():
            check_known(project, pipelines, subject, otherwise=_ABSENT)
    hold_id, of = new_id(), {}
    for each in pipelines:
        assert each.spec.privacy
        keys = keys_of(each)
        known_as = {
            (key.suppressing.pseudonym(value), key.version) for value in stored_values(each, subject) for key in keys
        }
        hashes = [[*pair] for pair in sorted(known_as)]
        of[each.spec.name] = KeptPipeline(each.spec.privacy.subject, keys[0].version, keys[0].check, [], hashes)
    kept = KeptHold(hold_id, why, until.isoformat() if until else None, by, of)
    try:
        with repeating(), recording(project) as con:  # a backup may lack the hold that an erasure is repeated under
            _insert(con, pipelines, kept)
            keep_hold(project, pipelines, kept)
    except Exception:
        hold_file(project, hold_id).unlink(missing_ok=True)
        raise
    return hold_id


def hold_again(project: Project, pipelines: Sequence[Pipeline], kept: KeptHold, macs: Mapping[str, str]) -> None:
    """Place a hold that a restored backup does not know, as `kept_hold` read it beside the warehouse.

    Raises:
        DeclarationError: a secret is missing.
        ErasureError: the file was altered, or a secret is another one.
        WarehouseError: the warehouse cannot be written.
    """
    for pipeline in pipelines:
        key_of(pipeline, kept, macs, hold_file(project, kept.hold_id))
    with repeating(), recording(project) as con:
        _insert(con, pipelines, kept)


def _insert(con: DuckDBPyConnection, pipelines: Sequence[Pipeline], kept: KeptHold) -> None:
    now = clock.now()
    for pipeline in pipelines:
        for key in keys_of(pipeline):
            keep_check(con, key)
    entry = _HoldEntry(
        *(kept.hold_id, sorted(kept.pipelines), "held", kept.why, instant(kept.until), kept.made_by, now)
    )
    insert_rows(con, "erasures", [entry])
    rows = [
        _HeldEntry(kept.hold_id, name, token, version, now)
        for name, of in kept.pipelines.items()
        for token, version in of.suppressed
    ]
    insert_rows(con, "held_subjects", rows)
    _record(con, kept.hold_id, "held", kept.why, kept.made_by, now)


def release_hold(
    project: Project,
    hold_id: str,
    *,
    why: str,
    by: str,
    pipelines: Sequence[Pipeline] = (),
) -> int:
    """End a hold; how many rows it kept aside, which the next erasure of the subject, or the next purge, removes.

    `pipelines`: those that are declared; by their secrets, `why` is searched for the identifier.

    Raises:
        DeclarationError: `why` has it, or a secret is missing.
        NotFoundError: there is no such hold.
        ErasureError: it is released already.
        WarehouseError: the warehouse cannot be written.
    """
    with recording(project) as con:
        known = {each["hold_id"]: each for each in dicts(con.execute(_LIST))}
        if hold_id not in known:
            listed = ", ".join([*known][-5:]) or "none"
            raise NotFoundError(f"There is no hold {hold_id!r}; there are: {listed}.", name=hold_id, known=[*known])
        found = known[hold_id]
        if found["state"] == "released":
            raise ErasureError(f"The hold {hold_id} is released already.")
        of = "SELECT subject FROM ledger.held_subjects WHERE hold_id = $id"
        hashes = [token for (token,) in con.execute(of, {"id": hold_id}).fetchall()]
        check_text_of((each for each in pipelines if each.spec.name in found["pipelines"]), hashes, "--why", why)
        now = clock.now()
        insert_rows(con, "erasures", [_HoldEntry(hold_id, found["pipelines"], "released", why, None, by, now)])
        _record(con, hold_id, "released", why, by, now)
    hold_file(project, hold_id).unlink(missing_ok=True)
    return int(found["rows_kept"])


def list_holds(project: Project) -> list[dict[str, Any]]:
    """All holds, also those that are released, without the subject.

    Raises:
        WarehouseError: the warehouse cannot be read.
    """
    try:
        with workspace(threads=1) as con, reading(con, project, purpose="listing holds"):
            return dicts(con.execute(_LIST))
    except NoWarehouseError:
        return []


def _record(con: DuckDBPyConnection, hold_id: str, state: str, why: str, by: str, now: datetime) -> None:
    event = audit.Event("hold", audit.micros(now), by, None, {"hold_id": hold_id}, {"state": state, "why": why})
    audit.append(con, [event])
