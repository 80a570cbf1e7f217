"""Legal holds: rows of a subject that an erasure or a purge takes away are kept aside until the hold is released."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pip_dagster import clock
from pip_dagster.erasure.opened import opened
from pip_dagster.erasure.place import ErasureRequest
from pip_dagster.errors import ErasureError, NotFoundError, NoWarehouseError
from pip_dagster.ledger import audit
from pip_dagster.ledger.record import dicts, new_id
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.plural import plural
from pip_dagster.privacy.keys import keep_check, keys_of
from pip_dagster.privacy.suppressed import check_person, stored_values
from pip_dagster.sql.names import among, literal, quote
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.erased import repeating
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project

# The newest row of a hold says whether it is on.
_STATES = """
  SELECT erasure_id AS hold_id, arg_max(state, made_at) AS state FROM ledger.erasures WHERE kind = 'hold' GROUP BY 1
"""
_LIST = f"""
  SELECT e.erasure_id AS hold_id, s.state, e.pipelines, e.why, e.held_until, e.made_by, min(e.made_at) AS placed_at,
         (SELECT count(*) FROM ledger.held_rows r WHERE r.hold_id = e.erasure_id) AS rows_kept
  FROM ledger.erasures e JOIN ({_STATES}) s ON s.hold_id = e.erasure_id WHERE e.state = 'held' GROUP BY ALL
  ORDER BY placed_at
"""
# Kept rows whose hold is released, unless their subject is on another one.
RELEASED = f"""
  hold_id IN (SELECT hold_id FROM ({_STATES}) WHERE state = 'released') AND hold_id NOT IN (
    SELECT a.hold_id FROM ledger.held_subjects a JOIN ledger.held_subjects b ON b.subject = a.subject
    AND b.pipeline = a.pipeline JOIN ({_STATES}) s ON s.hold_id = b.hold_id WHERE s.state = 'held')
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
    project: Project, pipelines: Sequence[Pipeline], subject: str, *, why: str, by: str, until: datetime | None = None
) -> str:
    """Have erasures and purges keep a subject's rows, until the hold is released; its id.

    Raises:
        DeclarationError: a pipeline declares no subject, or a secret is missing.
        WarehouseError: the warehouse cannot be written.
    """
    for pipeline in pipelines:
        check_person(pipeline, subject)
    of = {
        each.spec.name: {
            (key.suppressing.pseudonym(value), key.version)
            for value in stored_values(each, subject)
            for key in keys_of(each)
        }
        for each in pipelines
    }
    hold_id, now = new_id(), clock.now()
    # A restored backup may lack the hold under which an erasure is to be repeated.
    with repeating(), opened(project) as con, transaction(con):
        for pipeline in pipelines:
            for key in keys_of(pipeline):
                keep_check(con, key)
        insert_rows(con, "erasures", [_HoldEntry(hold_id, sorted(of), "held", why, until, by, now)])
        rows = [_HeldEntry(hold_id, name, *pair, now) for name, pairs in of.items() for pair in sorted(pairs)]
        insert_rows(con, "held_subjects", rows)
        _record(con, hold_id, "held", why, by, now)
    return hold_id


def release_hold(project: Project, hold_id: str, *, why: str, by: str) -> int:
    """End a hold; how many rows it kept aside, which the next erasure of the subject, or the next purge, removes.

    Raises:
        NotFoundError: there is no such hold.
        ErasureError: it is released already.
        WarehouseError: the warehouse cannot be written.
    """
    with opened(project) as con, transaction(con):
        known = {each["hold_id"]: each for each in dicts(con.execute(_LIST))}
        if hold_id not in known:
            listed = ", ".join([*known][-5:]) or "none"
            raise NotFoundError(f"There is no hold {hold_id!r}; there are: {listed}.", name=hold_id, known=[*known])
        found = known[hold_id]
        if found["state"] == "released":
            raise ErasureError(f"The hold {hold_id} is released already.")
        now = clock.now()
        insert_rows(con, "erasures", [_HoldEntry(hold_id, found["pipelines"], "released", why, None, by, now)])
        _record(con, hold_id, "released", why, by, now)
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


def hold_on(con: DuckDBPyConnection, pipeline: str, tokens: Sequence[str]) -> tuple[str, datetime | None] | None:
    """The hold that a subject with one of these keyed hashes is on, the newest of several, and until when."""
    select = (
        "SELECT h.hold_id, any_value(e.held_until) FROM ledger.held_subjects h "
        f"JOIN ({_STATES}) s ON s.hold_id = h.hold_id AND s.state = 'held' "
        "JOIN ledger.erasures e ON e.erasure_id = h.hold_id AND e.state = 'held' "
        "WHERE h.pipeline = $pipeline AND h.subject IN (SELECT unnest($tokens)) GROUP BY 1 ORDER BY 1 DESC LIMIT 1"
    )
    return con.execute(select, {"pipeline": pipeline, "tokens": [*tokens]}).fetchone()


def stored_on_hold(con: DuckDBPyConnection, pipeline: Pipeline, tables: Mapping[str, str]) -> dict[str, list[str]]:
    """Hold → what stands for its subject in these tables of features: SQL → the column that names it.

    Raises:
        ErasureError: a hold does not know its subject by a secret of the pipeline.
    """
    name = pipeline.spec.name
    rows = con.execute(
        f"SELECT h.hold_id, h.key_version, h.subject FROM ledger.held_subjects h JOIN ({_STATES}) s "
        f"ON s.hold_id = h.hold_id AND s.state = 'held' WHERE h.pipeline = {literal(name)} ORDER BY ALL"
    ).fetchall()
    if not rows:
        return {}
    keys = {key.version: key for key in keys_of(pipeline)}
    for hold_id in {row[0] for row in rows}:
        if lacking := sorted(keys.keys() - {version for of, version, _ in rows if of == hold_id}):
            raise ErasureError(
                f"Pipeline {name}: the hold {hold_id} was placed before the secret {lacking[0]!r} was declared, and "
                "does not know rows by it. Place it again, release the former one, and purge again."
            )
    found: dict[str, set[str]] = {}
    for version in sorted({version for _, version, _ in rows} & keys.keys()):
        key = keys[version]
        of = {token: hold_id for hold_id, by, token in rows if by == version}
        for table, column in tables.items():
            token = key.suppressing.sql(quote(column))
            select = (
                f"SELECT DISTINCT value, token FROM (SELECT {quote(column)}::VARCHAR AS value, {token} AS token FROM "
                f"(SELECT DISTINCT {quote(column)} FROM {table})) WHERE token IN ({', '.join(map(literal, of))})"
            )
            for value, held in con.execute(select, dict(key.values)).fetchall():
                found.setdefault(of[held], set()).add(value)
    return {hold_id: sorted(values) for hold_id, values in found.items()}


def only(request: ErasureRequest, pipeline: str) -> ErasureRequest:
    """The same of one pipeline."""
    columns, subjects = {pipeline: request.columns[pipeline]}, {pipeline: request.subjects[pipeline]}
    return replace(request, columns=columns, subjects=subjects)


def released(request: ErasureRequest) -> Iterator[str]:
    """For each pipeline, the condition that a row was kept of the subject by a hold that is released."""
    for pipeline, tokens in request.tokens.items():
        of_subject = f"SELECT hold_id FROM ledger.held_subjects WHERE {among('subject', tokens)}"
        yield f"pipeline = {literal(pipeline)} AND hold_id IN ({of_subject}) AND {RELEASED}"


def kept_text(rows: int, held: Sequence[tuple[str, str, datetime | None]]) -> tuple[str, datetime | None]:
    """What remains under holds, each with its pipeline and its end, in words; and until when at the least."""
    if not rows:
        return "", None
    names = ", ".join(sorted({hold_id for _, hold_id, _ in held}))
    until = max((at for *_, at in held if at), default=None)
    return (
        f"{plural(rows, 'row')} of the subject, restricted: kept in ledger.held_rows alone, until the legal hold "
        f"{names} is released and the erasure is repeated; "
    ), until


def _record(con: DuckDBPyConnection, hold_id: str, state: str, why: str, by: str, now: datetime) -> None:
    event = audit.Event("hold", audit.micros(now), by, None, {"hold_id": hold_id}, {"state": state, "why": why})
    audit.append(con, [event])
