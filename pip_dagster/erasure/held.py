"""Who is on a legal hold, and what a hold keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster.erasure.place import ErasureRequest
from pip_dagster.errors import ErasureError
from pip_dagster.evidence.contents import columns_of_tables
from pip_dagster.plural import plural
from pip_dagster.privacy.keys import keys_of
from pip_dagster.sql.names import among, column_named, literal, quote

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

# The newest row of a hold says whether it is on.
STATES = """
  SELECT erasure_id AS hold_id, arg_max(state, made_at) AS state FROM ledger.erasures WHERE kind = 'hold' GROUP BY 1
"""
# Kept rows whose hold is released, unless their subject is on another one.
RELEASED = f"""
  hold_id IN (SELECT hold_id FROM ({STATES}) WHERE state = 'released') AND hold_id NOT IN (
    SELECT a.hold_id FROM ledger.held_subjects a JOIN ledger.held_subjects b ON b.subject = a.subject
    AND b.pipeline = a.pipeline JOIN ({STATES}) s ON s.hold_id = b.hold_id WHERE s.state = 'held')
"""


def hold_on(con: DuckDBPyConnection, pipeline: str, tokens: Sequence[str]) -> tuple[str, datetime | None] | None:
    """The hold that a subject with one of these keyed hashes is on, the newest of several, and until when."""
    select = (
        "SELECT h.hold_id, any_value(e.held_until) FROM ledger.held_subjects h "
        f"JOIN ({STATES}) s ON s.hold_id = h.hold_id AND s.state = 'held' "
        "JOIN ledger.erasures e ON e.erasure_id = h.hold_id AND e.state = 'held' "
        "WHERE h.pipeline = $pipeline AND h.subject IN (SELECT unnest($tokens)) GROUP BY 1 ORDER BY 1 DESC LIMIT 1"
    )
    return con.execute(select, {"pipeline": pipeline, "tokens": [*tokens]}).fetchone()


def stored_on_hold(con: DuckDBPyConnection, pipeline: Pipeline) -> dict[str, list[str]]:
    """Hold → what stands for its subject in the pipeline's tables of features.

    Raises:
        ErasureError: a hold does not know its subject by a secret of the pipeline.
    """
    name, privacy = pipeline.spec.name, pipeline.spec.privacy
    rows = con.execute(
        f"SELECT h.hold_id, h.key_version, h.subject FROM ledger.held_subjects h JOIN ({STATES}) s "
        f"ON s.hold_id = h.hold_id AND s.state = 'held' WHERE h.pipeline = {literal(name)} ORDER BY ALL"
    ).fetchall()
    if not (rows and privacy):
        return {}
    tables = {
        f"{quote(name)}.{quote(table)}": column
        for (_, table), columns in columns_of_tables(con, {name}).items()
        if table.startswith("features__") and (column := column_named(columns, privacy.subject))
    }
    keys = {key.version: key for key in keys_of(pipeline)}
    for hold_id in {row[0] for row in rows}:
        if lacking := sorted(keys.keys() - {version for of, version, _ in rows if of == hold_id}):
            raise ErasureError(
                f"Pipeline {name}: the hold {hold_id} was placed before the secret {lacking[0]!r} was declared, and "
                "does not know rows by it. Place it again, release the former one, and repeat the command."
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


def held_requests(
    con: DuckDBPyConnection, pipelines: Sequence[Pipeline], request: ErasureRequest
) -> Iterator[tuple[str, ErasureRequest]]:
    """Each hold that is on in these pipelines, with the request that would name its subject's rows there.

    The subject of `request` is known by its hashes too, where none of its rows is stored.

    Raises:
        ErasureError: a hold does not know its subject by a secret of the pipeline.
    """
    for pipeline in pipelines:
        name, privacy = pipeline.spec.name, pipeline.spec.privacy
        if privacy is None:
            continue
        found = {hold_id: {*values} for hold_id, values in stored_on_hold(con, pipeline).items()}
        if own := hold_on(con, name, request.tokens.get(name, ())):
            found.setdefault(own[0], set()).update(request.subjects.get(name, ()))
        for hold_id, values in found.items():
            columns, subjects = {name: privacy.subject}, {name: sorted(values)}
            yield hold_id, replace(request, columns=columns, subjects=subjects, tokens={})


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
