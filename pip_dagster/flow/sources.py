"""The source tables, as the feature SQL sees them: views of the declared names, and nothing else."""

from __future__ import annotations

import difflib
import glob
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.errors import SourceError
from pip_dagster.sql.names import literal, parquet_rows, quote, quote_table
from pip_dagster.sql.row_sql import row_instant
from pip_dagster.warehouse.connect import attached

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec, Source


@contextmanager
def open_sources(
    con: DuckDBPyConnection, spec: PipelineSpec, root: Path, *, known_at: Callable[[Source], datetime] | None = None
) -> Iterator[None]:
    """Attach what the declared sources name, read-only, and lay a view of each declared name over it.

    `known_at` gives an instant for a source: its rows that could not be known then, by its `available_at`, are hidden.
    A row with NULL could never be known.

    A table that is not declared does not exist for the feature SQL: the lineage names all that it read.

    Raises:
        DeclarationError: `available_at` is not an expression over the source's columns.
        SourceError: a file, table or column is missing or locked; names the pipeline, the source and what is there.
    """
    with ExitStack() as stack:
        catalogs: dict[str, str] = {}
        for name, source in spec.sources.items():
            if source.parquet:
                origin = parquet_rows([_pattern(root, source.parquet)])
            else:
                place = source.database or spec.source_database or ""
                if place not in catalogs:
                    catalogs[place] = f"source_{secrets.token_hex(8)}"  # not to be named in the SQL
                    stack.enter_context(attached(con, root / place, catalogs[place], read_only=True))
                origin = f"{quote(catalogs[place])}.{quote_table(source.table)}"
            _lay_view(con, spec, name, source, origin, catalogs)
            stack.callback(con.execute, f"DROP VIEW IF EXISTS memory.{quote_table(source.table)}")
            if known_at and source.available_at:
                where, row = f"Pipeline {spec.name}: sources.{name}.available_at", f"the source {source.table}"
                columns = columns_of(con, source)
                known = row_instant(
                    source.available_at, columns, where=where, row=row, time_zone=spec.partitions.time_zone
                )
                con.execute(
                    f"CREATE OR REPLACE VIEW memory.{quote_table(source.table)} AS SELECT * FROM {origin} "
                    f"WHERE {known} <= {literal(known_at(source).isoformat())}::TIMESTAMPTZ"
                )
        yield


def _pattern(root: Path, declared: str) -> str:
    """A glob of the declared files. A file of that very name is no pattern, and neither is the project's own path."""
    if (root / declared).is_file():
        return glob.escape(str(root / declared))
    return str(Path(glob.escape(str(root))) / declared)


def _lay_view(
    con: DuckDBPyConnection, spec: PipelineSpec, name: str, source: Source, origin: str, catalogs: dict[str, str]
) -> None:
    import duckdb

    con.execute(f"CREATE SCHEMA IF NOT EXISTS memory.{quote(source.table.split('.')[0])}")
    try:
        con.execute(f"CREATE VIEW memory.{quote_table(source.table)} AS SELECT * FROM {origin}")
    except duckdb.Error as error:
        place = source.parquet or source.database or spec.source_database
        there = [] if source.parquet else _tables_in(con, catalogs[source.database or spec.source_database or ""])
        # A view that is there and broken is close to itself; DuckDB says what it lacks.
        close = [name for name in difflib.get_close_matches(source.table, there, n=3) if name != source.table]
        hint = f" Did you mean {' or '.join(close)}?" if close else f" It has: {', '.join(there[:20]) or 'no tables'}."
        raise SourceError(
            f"Pipeline {spec.name}: source {name!r} ({source.table}) cannot be read from {place}."
            + ("" if source.parquet or source.table in there else hint)
            + f" DuckDB says: {str(error).splitlines()[0]}"
        ) from error
    for key in ("partition_column", "change_column"):
        declared = getattr(source, key)
        if declared and declared not in columns_of(con, source):
            raise SourceError(
                f"Pipeline {spec.name}: source {name!r} ({source.table}) has no column {declared!r}, "
                f"which it declares as {key}. It has: {', '.join(columns_of(con, source))}."
            )


def _tables_in(con: DuckDBPyConnection, catalog: str) -> list[str]:
    rows = con.execute(
        "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE database_name = $c "
        "UNION ALL SELECT schema_name || '.' || view_name FROM duckdb_views() "
        "WHERE database_name = $c AND NOT internal",
        {"c": catalog},
    ).fetchall()
    return sorted(row[0] for row in rows)


def columns_of(con: DuckDBPyConnection, source: Source) -> dict[str, str]:
    """A source's columns with their SQL types, in order; inside `open_sources`."""
    rows = con.execute(f"DESCRIBE memory.{quote_table(source.table)}").fetchall()
    return {row[0]: row[1] for row in rows}


def local_time(sql_type: str, column: str, time_zone: str) -> str | None:
    """The wall-clock time of a column in SQL; None for a type that is not a time."""
    if sql_type == "TIMESTAMP WITH TIME ZONE":
        return f"timezone({literal(time_zone)}, {column})"
    return f"{column}::TIMESTAMP" if sql_type == "DATE" or sql_type.startswith("TIMESTAMP") else None
