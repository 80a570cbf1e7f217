"""Which golden rows are a subject's, and those of people on hold, which are kept aside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pip_dagster import clock
from pip_dagster.erasure.place import ErasureRequest
from pip_dagster.evidence.contents import columns_of_tables
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.registry.manifest import Manifest
from pip_dagster.sql.names import among, column_named, quote

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from pip_dagster.registry.version import ModelVersion

# Kinds of tables that have the values that a model takes.
_KINDS = ("features", "quarantine")
_GOLDEN, _PERSON = "pip_golden", "pip_person"


@dataclass(frozen=True)
class HeldGolden:
    """A hold, what would erase its subject, and the subject's stored rows."""

    hold_id: str
    request: ErasureRequest
    rows: Sequence[pa.Table]


@dataclass(frozen=True)
class _KeptEntry:
    """One row of `ledger.held_rows`."""

    hold_id: str
    erasure_id: str
    pipeline: str
    partition_key: str
    table_name: str
    content: str
    made_at: datetime


def keep(
    con: DuckDBPyConnection, hold: HeldGolden, version: ModelVersion, table: pa.Table, positions: Sequence[int]
) -> int:
    """Keep aside those of the golden rows at these positions that are of a hold's subject; how many.

    Those that were kept before, by an attempt that was killed, are not kept twice. Call it in a transaction.
    """
    at = sorted(equal_rows(table, version.manifest, hold.request, hold.rows) & {*positions})
    if not at:
        return 0
    [pipeline], name = hold.request.columns, f"golden__{version.name}_v{version.version}"
    texts = [json.dumps(_plain(row), ensure_ascii=False, default=str) for row in table.take(at).to_pylist()]
    given = {"hold": hold.hold_id, "erasure": hold.request.erasure_id, "table": name, "pipeline": pipeline}
    kept = con.execute(
        "SELECT content FROM ledger.held_rows WHERE hold_id = $hold AND erasure_id = $erasure AND table_name = $table "
        "AND pipeline = $pipeline",
        given,
    ).fetchall()
    new = [text for text in texts if (text,) not in kept]
    of = (hold.hold_id, hold.request.erasure_id, pipeline, f"golden rows of {version.name} v{version.version}", name)
    insert_rows(con, "held_rows", [_KeptEntry(*of, text, clock.now()) for text in new])
    return len(texts)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in row.items()}  # NaN is no JSON


def people(con: DuckDBPyConnection, request: ErasureRequest) -> Iterator[pa.Table]:
    """The subject's stored rows, of each table that says which they are."""
    for (pipeline, name), columns in columns_of_tables(con, {*request.columns}).items():
        column = column_named(columns, request.columns[pipeline])
        if column and name.partition("__")[0] in _KINDS:
            of_subject = among(f"{quote(column)}::VARCHAR", request.subjects[pipeline])
            table = con.execute(f"SELECT * FROM {quote(pipeline)}.{quote(name)} WHERE {of_subject}").to_arrow_table()
            if table.num_rows:
                yield table


def equal_rows(table: pa.Table, manifest: Manifest, request: ErasureRequest, of: Sequence[pa.Table]) -> set[int]:
    """The positions of golden rows with the subject's value, or the values of one of their rows."""
    import duckdb
    import pyarrow as pa

    found: set[int] = set()
    names = {name: name for name in table.column_names}
    with duckdb.connect(config={"threads": 1}) as con:
        con.register(_GOLDEN, table.append_column("pip_at", pa.array(range(table.num_rows), pa.int64())))
        for pipeline, subject in request.columns.items():
            if column := column_named(names, subject):
                found |= _positions(con, f"WHERE {among(f'{quote(column)}::VARCHAR', request.subjects[pipeline])}")
        for rows in of:
            if (same := _same(manifest, rows.column_names)) is not None:
                con.register(_PERSON, rows)
                found |= _positions(con, f"SEMI JOIN {_PERSON} p ON {same}")
    return found


def _positions(con: DuckDBPyConnection, condition: str) -> set[int]:
    return {at for (at,) in con.execute(f"SELECT pip_at FROM {_GOLDEN} g {condition}").fetchall()}


def _same(manifest: Manifest, columns: Sequence[str]) -> str | None:
    """The condition that rows are the same to the model; None where a column that it takes is not there."""
    named, missing, found = {name: name for name in columns}, manifest.missing, []
    numbers = [feature.name for feature in manifest.features if feature.categories is None]
    numbers += [manifest.offset] if manifest.offset else []
    for name in [feature.name for feature in manifest.features if feature.categories is not None] + numbers:
        other = column_named(named, name)
        if other is None:
            return None
        ours, theirs = f"g.{quote(name)}", f"p.{quote(other)}"
        of = _number if name in numbers else _text
        found.append(f"{of(ours, missing)} IS NOT DISTINCT FROM {of(theirs, missing)}")
    return " AND ".join(found)


def _text(column: str, missing: float | None) -> str:
    return f"{column}::VARCHAR"


def _number(column: str, missing: float | None) -> str:
    """As the matrix has it: float32, NULL for NaN and for the number that stands for a missing value."""
    number = f"nullif(TRY_CAST({column} AS FLOAT), 'NaN'::FLOAT)"
    return number if missing is None else f"nullif({number}, {missing!r}::FLOAT)"
