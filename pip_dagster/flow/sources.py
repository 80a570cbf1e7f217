"""The source tables, as the feature SQL sees them: views of the declared names, and nothing else."""

from __future__ import annotations

import difflib
import glob
import secrets
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError, SourceError
from pip_dagster.flow.digest import RowSet, row_set_sql
from pip_dagster.flow.partition import Partition
from pip_dagster.warehouse.connect import attached
from pip_dagster.warehouse.names import literal, quote, quote_table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.spec import PipelineSpec, Source


@contextmanager
def open_sources(
    con: DuckDBPyConnection, spec: PipelineSpec, root: Path, *, known_at: datetime | None = None
) -> Iterator[None]:
    """Attach what the declared sources name, read-only, and lay a view of each declared name over it.

    `known_at` hides the rows that could not be known then, by each source's `available_at`; NULL could never be.

    A table that is not declared does not exist for the feature SQL: what it read is what the lineage says.

    Raises:
        SourceError: a file, table or column is missing or locked; names the pipeline, the source and what is there.

    """
    with ExitStack() as stack:
        catalogs: dict[str, str] = {}
        for name, source in spec.sources.items():
            if source.parquet:
                # Only the declared part is a pattern: the project's own path may hold brackets.
                files = str(Path(glob.escape(str(root))) / source.parquet)
                origin = f"read_parquet({literal(files)}, union_by_name = true)"
            else:
                place = source.database or spec.source_database or ""
                if place not in catalogs:
                    catalogs[place] = f"source_{secrets.token_hex(8)}"  # not to be named in the SQL
                    stack.enter_context(attached(con, root / place, catalogs[place], read_only=True))
                origin = f"{quote(catalogs[place])}.{quote_table(source.table)}"
            if known_at and source.available_at:
                origin += f" WHERE ({source.available_at}) <= {literal(known_at.isoformat())}::TIMESTAMPTZ"
            _lay_view(con, spec, name, source, origin, catalogs)
            stack.callback(con.execute, f"DROP VIEW IF EXISTS memory.{quote_table(source.table)}")
        yield


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
        close = difflib.get_close_matches(source.table, there, n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else f" It has: {', '.join(there[:20]) or 'no tables'}."
        raise SourceError(
            f"Pipeline {spec.name}: source {name!r} ({source.table}) cannot be read from {place}."
            + ("" if source.parquet else hint)
            + f" DuckDB says: {str(error).splitlines()[0]}"
        ) from error
    if source.partition_column and source.partition_column not in columns_of(con, source):
        raise SourceError(
            f"Pipeline {spec.name}: source {name!r} ({source.table}) has no column {source.partition_column!r}, "
            f"which it declares as partition_column. It has: {', '.join(columns_of(con, source))}."
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


def fingerprints(
    con: DuckDBPyConnection, spec: PipelineSpec, partitions: Sequence[Partition]
) -> dict[str, dict[str, dict[str, object]]]:
    """What each partition's sources hold: partition key → source → rows and digest; inside `open_sources`.

    A source with a partition column counts with its rows from `lookback` before the partition to its end; one
    without counts whole. One SQL a source, whatever the number of partitions.

    """
    found: dict[str, dict[str, dict[str, object]]] = {partition.key: {} for partition in partitions}
    for name, source in spec.sources.items():
        columns = columns_of(con, source)
        if source.partition_column is None:
            row = con.execute(f"SELECT {row_set_sql(columns)} FROM memory.{quote_table(source.table)}").fetchone()
            assert row
            whole = RowSet(*row)
            for sets in found.values():
                sets[name] = {"rows": whole.rows, "digest": whole.digest(columns)}
            continue
        buckets = _buckets(con, spec, source, columns, partitions)
        times = sorted(buckets)
        for partition in partitions:
            start, end = _window(spec, source, columns, partition)
            first = bisect_left(times, start)
            last = bisect_left(times, end)
            rows = sum((buckets[at] for at in times[first:last]), RowSet())
            found[partition.key][name] = {"rows": rows.rows, "digest": rows.digest(columns)}
    return found


def _buckets(
    con: DuckDBPyConnection,
    spec: PipelineSpec,
    source: Source,
    columns: dict[str, str],
    partitions: Sequence[Partition],
) -> dict[datetime, RowSet]:
    """Row sets by stretches of time, for the range with its lookback."""
    column = quote(source.partition_column or "")
    local = local_time(columns[source.partition_column or ""], column, spec.partitions.time_zone)
    if local is None:
        raise DeclarationError(
            f"Pipeline {spec.name}: source {source.table}, partition_column {source.partition_column} is "
            f"{columns[source.partition_column or '']}; expected DATE, TIMESTAMP or TIMESTAMP WITH TIME ZONE."
        )
    if _by_instant(spec, source, columns):
        local = f"timezone('UTC', {column})"
    windows = [_window(spec, source, columns, partition) for partition in partitions]
    rows = con.execute(
        f"SELECT time_bucket(INTERVAL '{_grain(spec, source, columns)}', {local}) AS bucket, {row_set_sql(columns)} "
        f"FROM memory.{quote_table(source.table)} WHERE {local} >= $first AND {local} < $last GROUP BY ALL",
        {"first": min(start for start, _ in windows), "last": max(end for _, end in windows)},
    ).fetchall()
    return {row[0]: RowSet(*row[1:]) for row in rows}


def _by_instant(spec: PipelineSpec, source: Source, columns: dict[str, str]) -> bool:
    """Whether rows are told apart by the instant: by the wall clock an hour that the clocks repeat is one, not two."""
    return spec.partitions.every == "hour" and columns[source.partition_column or ""] == "TIMESTAMP WITH TIME ZONE"


def _window(
    spec: PipelineSpec, source: Source, columns: dict[str, str], partition: Partition
) -> tuple[datetime, datetime]:
    """Which rows of a source a partition may read: from, until; in UTC by the instant, else by the wall clock."""
    if _by_instant(spec, source, columns):
        start, end = (each.astimezone(UTC).replace(tzinfo=None) for each in (partition.start, partition.end))
    else:
        start, end = partition.start_local, partition.end_local
        end = max(end, start + timedelta(hours=1))  # the first of two equal hours ends where it began
    return start - source.lookback, end


def _grain(spec: PipelineSpec, source: Source, columns: dict[str, str]) -> str:
    """The longest stretch that no window's bound divides."""
    if source.lookback % timedelta(hours=1):
        return "1 minute"
    if _by_instant(spec, source, columns):
        return "15 minutes"  # there are zones that many minutes off UTC
    return "1 hour" if spec.partitions.every == "hour" or source.lookback % timedelta(days=1) else "1 day"


def local_time(sql_type: str, column: str, time_zone: str) -> str | None:
    """The wall-clock time of a column in SQL; None for a type that tells no time."""
    if sql_type == "TIMESTAMP WITH TIME ZONE":
        return f"timezone({literal(time_zone)}, {column})"
    return f"{column}::TIMESTAMP" if sql_type == "DATE" or sql_type.startswith("TIMESTAMP") else None
