"""The source tables, as the feature SQL sees them: views of the declared names, and nothing else."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError, SourceError
from pip_dagster.flow.origins import kinds
from pip_dagster.flow.origins.opened import Counting, Opened, Opening
from pip_dagster.flow.source_files import SourceFiles, holds
from pip_dagster.quoted import first
from pip_dagster.sql.names import literal, parquet_rows, quote, quote_table
from pip_dagster.sql.row_sql import row_instant
from pip_dagster.warehouse import faults, pinned
from pip_dagster.warehouse.interrupts import raise_if_interrupted
from pip_dagster.warehouse.unreadable import is_of_file

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec, Source


@dataclass(frozen=True)
class OpenSources:
    """The sources as their origins gave them, by name."""

    of: dict[str, Opened]

    @property
    def files(self) -> set[str]:
        """What SQL reads beside attached databases; what `SourceFiles` reads is left out."""
        return set[str]().union(*(each.files for each in self.of.values()))

    @property
    def folders(self) -> set[str]:
        """The same of folders."""
        return set[str]().union(*(each.folders for each in self.of.values()))

    def counts(self, name: str, counting: Counting | None) -> str | None:
        """SQL of what the source's origin counts itself; None where it does not."""
        count = self.of[name].counts
        return count(counting) if count and counting else None


@contextmanager
def open_sources(
    con: DuckDBPyConnection, spec: PipelineSpec, root: Path, *, known_at: Callable[[Source], datetime] | None = None
) -> Iterator[OpenSources]:
    """Attach what the declared sources name, read-only, and lay a view of each declared name over it.

    `known_at` gives an instant for a source: its rows that could not be known then, by its `available_at`, are hidden.
    A row with NULL could never be known.

    A table that is not declared does not exist for the feature SQL: the lineage names all that it read.

    All reads of servers see one snapshot of each: they are in one transaction (`pinned`).

    Raises:
        DeclarationError: `available_at` is not an expression over the source's columns.
        SourceError: a file, table or column is missing; names the pipeline, the source and what is there.
        SourceAwayError: a source is locked, or its server does not answer.
    """
    import duckdb

    with ExitStack() as stack:
        files = SourceFiles(con, spec, root, stack)
        opening, found = Opening(con, spec.name, root, stack), OpenSources({})
        for schema in {_schema_of(source) for source in spec.sources.values()} - {"main"}:
            # None is left over, which a database of that name would be confused with.
            stack.callback(con.execute, f"DROP SCHEMA IF EXISTS memory.{quote(schema)}")
            con.execute(f"CREATE SCHEMA IF NOT EXISTS memory.{quote(schema)}")
        for name, source in spec.sources.items():
            stack.callback(con.execute, f"DROP VIEW IF EXISTS {view_of(source)}")
            opened = found.of[name] = _open(opening, name, source, files)
            select = _lay_view(con, spec, name, source, files, opened)
            if known_at and source.available_at:
                where, row = f"Pipeline {spec.name}: sources.{name}.available_at", f"the source {source.table}"
                columns = columns_of(con, source)
                known = row_instant(
                    source.available_at, columns, where=where, row=row, time_zone=spec.partitions.time_zone
                )
                con.execute(
                    f"CREATE OR REPLACE VIEW {view_of(source)} AS {select} "
                    f"WHERE {known} <= {literal(known_at(source).isoformat())}::TIMESTAMPTZ"
                )
        _check_views(con, spec, files)
        try:
            with pinned.pinned(con, opening.begin) if opening.begins else nullcontext():
                yield found
        except duckdb.Error as error:  # feature SQL can read rows that nothing else has read
            if faults.is_of_spill(error) or not (is_of_file(error) or kinds.is_of_server(error)):
                raise
            raise _of_any(spec, error) from error
        except DeclarationError as error:  # SQL that fails with its server is not wrong
            if error.__cause__ is None or not kinds.is_of_server(error.__cause__):
                raise
            raise _of_any(spec, error.__cause__) from error


def _of_any(spec: PipelineSpec, error: BaseException) -> SourceError:
    """The error of a source, of which DuckDB does not say which one it is."""
    said = f"DuckDB says: {first(error)}"
    origins = [source for source in spec.sources.values() if kinds.origin_of(source) or source.bucket]
    if origins and kinds.is_of_server(error):
        places = " or ".join(sorted({source.place(spec.source_database) for source in origins}))
        return kinds.failed(f"Pipeline {spec.name}: a source", origins[0], places, error)
    for source in origins:
        if (place := source.place(None)) in str(error):  # one of its files is gone
            return kinds.failed(f"Pipeline {spec.name}: source {source.table}", source, place, error)
    return SourceError(
        f"Pipeline {spec.name}: a source cannot be read. Restore the file, or run what writes it again. {said}"
    )


def view_of(source: Source) -> str:
    """The view through which all SQL reads a source; inside `open_sources`."""
    return f"memory.{quote_table(source.table)}"


def _schema_of(source: Source) -> str:
    return source.table.split(".")[0].lower()  # SQL reads it by any capitals


@contextmanager
def rows_of(spec: PipelineSpec, name: str, source: Source) -> Iterator[None]:
    """Name the source whose rows cannot be read: a view fails on one, a file is damaged or was replaced meanwhile.

    Raises:
        SourceError: in place of DuckDB's error, unless that is about memory or its spill folder.
    """
    import duckdb

    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        raise
    except duckdb.Error as error:
        raise_if_interrupted(error)
        if faults.is_of_spill(error):
            raise
        place = source.place(spec.source_database)
        where = f"Pipeline {spec.name}: rows of source {name!r} ({source.table})"
        if kinds.origin_of(source) or source.bucket:
            raise kinds.failed(where, source, place, error) from error
        remedy = f"Correct or restore what it reads there. DuckDB says: {first(error)}"
        raise SourceError(f"{where} cannot be read from {place}. {remedy}") from error


def columns_of(con: DuckDBPyConnection, source: Source) -> dict[str, str]:
    """A source's columns with their SQL types, in order; inside `open_sources`."""
    return {row[0]: row[1] for row in con.execute(f"DESCRIBE {view_of(source)}").fetchall()}


def local_time(sql_type: str, column: str, time_zone: str) -> str | None:
    """The wall-clock time of a column in SQL; None for a type that is not a time."""
    if sql_type == "TIMESTAMP WITH TIME ZONE":
        return f"timezone({literal(time_zone)}, {column})"
    return f"{column}::TIMESTAMP" if sql_type == "DATE" or sql_type.startswith("TIMESTAMP") else None


def _open(at: Opening, name: str, source: Source, files: SourceFiles) -> Opened:
    """Open the source at its origin."""
    import duckdb

    if origin := kinds.origin_of(source):
        try:
            return origin.open_origin(at, name, source)
        except duckdb.Error as error:
            place = source.place(None)
            raise kinds.failed(at.where(name, source), source, place, error) from error
    if pattern := files.pattern(source):
        return Opened(parquet_rows([pattern]))
    catalog = files.attach(name, source)
    return Opened(f"{quote(catalog)}.{source.remote('main')}", catalog)


def _lay_view(
    con: DuckDBPyConnection, spec: PipelineSpec, name: str, source: Source, files: SourceFiles, opened: Opened
) -> str:
    """Create a source's view; the SELECT that it consists of."""
    import duckdb

    where, pattern = f"Pipeline {spec.name}: source {name!r} ({source.table})", files.pattern(source)
    select = f"SELECT * FROM {opened.relation}"
    while True:
        try:
            con.execute(f"CREATE OR REPLACE VIEW {view_of(source)} AS {select}")
            break
        except duckdb.Error as error:
            if not files.attach_for(error, name, source):
                if source.bucket or (kinds.origin_of(source) and opened.catalog is None):
                    raise kinds.failed(where, source, files.place(source), error) from error
                raise SourceError(_unreadable(con, where, source, files, opened, error)) from error
    if not (pattern or source.partition_column):
        return select
    columns = columns_of(con, source)  # of many Parquet files, this takes long
    if pattern:
        _check_twins(con, where, source, pattern, columns)
    _check_declared(where, source, columns)
    written = next((column for column in columns if column.lower() == (source.partition_column or "").lower()), None)
    if source.partition_column and written != source.partition_column:  # in other capitals, which SQL ignores
        select = f"SELECT * RENAME ({quote(written or '')} AS {quote(source.partition_column)}) FROM {opened.relation}"
        con.execute(f"CREATE OR REPLACE VIEW {view_of(source)} AS {select}")
    return select


def _check_declared(where: str, source: Source, columns: dict[str, str]) -> None:
    folded = {column.lower() for column in columns}
    for key in ("partition_column", "change_column"):
        declared = getattr(source, key)
        if declared and declared.lower() not in folded:
            raise SourceError(
                f"{where} has no column {declared!r}, which it declares as {key}. It has: {', '.join(columns)}."
            )


def _check_twins(con: DuckDBPyConnection, where: str, source: Source, pattern: str, columns: dict[str, str]) -> None:
    """Refuse columns whose names differ only in case: DuckDB numbers the second, and SQL would read the first."""
    folded = {column.lower() for column in columns}
    numbered = [
        (found[1], column)
        for column in columns
        if (found := re.fullmatch(r"(.+)_\d+", column)) and found[1].lower() in folded
    ]
    if not numbered:
        return
    written = {
        row[0] for row in con.execute(f"SELECT DISTINCT name FROM parquet_schema({literal(pattern)})").fetchall()
    }
    for name, column in numbered:
        if column not in written:
            alike = sorted(each for each in written if each.lower() == name.lower())
            raise SourceError(
                f"{where} has columns that differ only in case: {', '.join(alike)}. SQL cannot distinguish "
                f"them: rename one where {source.parquet} is written."
            )


def _check_views(con: DuckDBPyConnection, spec: PipelineSpec, files: SourceFiles) -> None:
    """A file that was attached by its name for one view can make a schema of that name ambiguous in another view."""
    import duckdb

    for name, source in spec.sources.items() if files.by_name else ():
        try:
            columns_of(con, source)
        except duckdb.Error as error:
            where = f"Pipeline {spec.name}: source {name!r} ({source.table})"
            if files.pattern(source) or kinds.origin_of(source):
                raise
            opened = Opened("", files.catalog(source))
            raise SourceError(_unreadable(con, where, source, files, opened, error)) from error


def _unreadable(
    con: DuckDBPyConnection, where: str, source: Source, files: SourceFiles, opened: Opened, error: Exception
) -> str:
    """Why a table or files cannot be read, and what to do."""
    said = f" DuckDB says: {first(error)}"
    if source.parquet:
        remedy = ""
        if holds((files.root / source.parquet).is_dir):
            remedy = (
                f" It is a directory: declare {source.parquet.rstrip('/')}/*.parquet, or **/*.parquet with its folders."
            )
        elif "No files found" in str(error):
            remedy = " Create a file, or correct `parquet`, which is relative to the project."
        elif "Permission denied" in str(error):
            remedy = " Give the user of this process the right to read it."
        elif "magic bytes" in str(error) or "too small" in str(error):
            remedy = " A file of it is no Parquet file: write it as Parquet, or remove it from there."
        return f"{where} cannot be read from {source.parquet}.{remedy}{said}"
    place, table = files.place(source), ".".join(source.remote_parts("main"))
    if not kinds.origin_of(source) and (hint := files.unknown_catalog(error, place)):
        return f"{where} cannot be read from {place}. {hint}"
    there = _tables_in(con, opened.catalog or "")
    if table in there:  # a view that is there and broken is close to itself; DuckDB says what it lacks
        return f"{where} cannot be read from {place}.{said}"
    close = difflib.get_close_matches(table, there, n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else f" It has: {', '.join(there[:20]) or 'no tables'}."
    return f"{where} cannot be read from {place}.{hint}{said}"


def _tables_in(con: DuckDBPyConnection, catalog: str) -> list[str]:
    rows = con.execute(
        "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE database_name = $c "
        "UNION ALL SELECT schema_name || '.' || view_name FROM duckdb_views() "
        "WHERE database_name = $c AND NOT internal",
        {"c": catalog},
    ).fetchall()
    return sorted(row[0] for row in rows)
