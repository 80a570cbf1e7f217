"""The DuckDB files that hold a pipeline's published rows. None is ever written in place.

DuckDB opens a Parquet file twice for one query, so a reader of one that is replaced meets two halves. A DuckDB file it
opens once: a reader sees the file before the change or the one after it, and with it all rows of a partition.

A partition stays in its file. New ones go to the newest file until it has reached `CAP`, so that a change costs the
same after any history. A large partition has a file of its own.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote as url_quote

from pip_dagster.sql.names import among, literal, quote

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CAP = 64 * 2**20  # bytes, from which a file gets no further partitions
LARGE = 200_000  # rows, from which a partition has a file of its own
_AT_ONCE = 2_000_000  # rows of new partitions that one change adds

Table = tuple[str, str]  # schema and name

# The catalogs of attached files, numbered.
ATTACHED = "published_{}"

# `read_duckdb` of DuckDB 1.5 gives NULLs for the fields of a STRUCT, and keeps one in a list. So a column of such a
# type is stored as a list of one, with this comment.
_LISTED = "a STRUCT, in a list of one"


@dataclass(frozen=True)
class Rows:
    """The rows of some partitions for one table.

    Attributes:
        table: Where they go.
        select: SQL of the rows; None if the pipeline has no such table.
        columns: Their names, and the SQL types with which they are stored.
        structs: Which of them are of the type STRUCT.
        order: The column by which a partition's rows are ordered.
        always: Have the table although it has no rows.
        none: Whether it is known that there are no rows, without reading them.
        of_scorings: Whether a partition without scorings has no rows.
    """

    table: Table
    select: str | None
    columns: Mapping[str, str]
    order: str | None
    always: bool
    structs: frozenset[str] = frozenset()
    none: bool = False
    of_scorings: bool = False

    @property
    def stored(self) -> str:
        """SQL of the rows as they are stored."""
        listed = ", ".join(f"[{quote(name)}] AS {quote(name)}" for name in sorted(self.structs))
        return f"SELECT * REPLACE ({listed}) FROM ({self.select})" if listed else str(self.select)

    def of(self, catalog: str) -> str:
        """The table in this catalog, qualified and quoted."""
        return f"{catalog}.{quote(self.table[0])}.{quote(self.table[1])}"


def as_read(structs: Iterable[str]) -> str:
    """What to select of stored rows, whose columns in `structs` are lists of one."""
    listed = ", ".join(f"{quote(name)}[1] AS {quote(name)}" for name in sorted(structs))
    return f"* REPLACE ({listed})" if listed else "*"


def mark_structs(con: DuckDBPyConnection, table: str, structs: Iterable[str]) -> None:
    """Note in the file which columns of a table are STRUCTs in lists of one."""
    for name in structs:
        con.execute(f"COMMENT ON COLUMN {table}.{quote(name)} IS {literal(_LISTED)}")


def in_files(files: str, schema: str, table: str, *, more: str = "") -> str:
    """SQL of the rows of a table in all files that match: a literal, or a list of them.

    A folder called `region=eu` adds no column.
    """
    return (
        f"read_duckdb({files}, schema_name = {literal(schema)}, table_name = {literal(table)}, "
        f"union_by_name = true, hive_partitioning = false{more})"
    )


def files_of(folder: Path) -> list[Path]:
    """The files with the rows of a pipeline, whose folder this is."""
    return sorted(folder.glob("*.duckdb"))


def sync(folder: Path) -> None:
    """Have the new names of files in a folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes have left. The caller is the only one that publishes there."""
    for file in folder.glob(".*.tmp*"):
        file.unlink(missing_ok=True)


def unreadable(con: DuckDBPyConnection, folder: Path) -> set[Path]:
    """The files of a pipeline that are damaged."""
    import duckdb

    found = set()
    for file in files_of(folder):
        try:
            _found_in(con, [file], "true")
        except duckdb.Error:
            found.add(file)
    return found


@contextmanager
def attached_tables(con: DuckDBPyConnection, files: Sequence[Path]) -> Iterator[dict[Table, list[str]]]:
    """Attach these files; each table that is more than a stub → SQL of its rows in each file that has it."""
    found: dict[Table, list[str]] = {}
    names = [ATTACHED.format(number) for number in range(len(files))]
    try:
        for name, file in zip(names, files, strict=True):
            con.execute(f"ATTACH {literal(str(file))} AS {name} (READ_ONLY)")
            of_file, structs = columns_of(con, name)
            for (schema, table), columns in of_file.items():
                if len(columns) > 1:
                    read = as_read(structs.get((schema, table), ()))
                    rows = f"SELECT {read} FROM {name}.{quote(schema)}.{quote(table)}"
                    found.setdefault((schema, table), []).append(rows)
        yield found
    finally:
        detach(con, names)


def places(
    con: DuckDBPyConnection, folder: Path, sizes: Mapping[str, int], *, without: Iterable[Path] = ()
) -> Iterator[tuple[Path, list[str]]]:
    """Each file to change with its partitions, out of those in `sizes`, partition → rows.

    Change a file before the next is requested: how large it is then decides where further partitions go. Those of
    files in `without` get another place.
    """
    found = {key: file for key in sizes if (file := _own(folder, key)).exists()}
    numbered = [file for file in folder.glob("rows-*.duckdb") if file not in {*without}]
    if numbered and (rest := sizes.keys() - found.keys()):
        found |= _found_in(con, numbered, among("partition_key", rest))
    found |= {key: _own(folder, key) for key, size in sizes.items() if key not in found and size > LARGE}
    by_file: dict[Path, list[str]] = {}
    for key in sizes:
        if key in found:
            by_file.setdefault(found[key], []).append(key)
    yield from by_file.items()
    batch: list[str] = []
    rows = 0
    for key in sizes:
        if key in found:
            continue
        if batch and rows + sizes[key] > _AT_ONCE:
            yield _newest(folder), batch
            batch, rows = [], 0
        batch.append(key)
        rows += sizes[key]
    if batch:
        yield _newest(folder), batch


def found_in(
    con: DuckDBPyConnection, folder: Path, keys: Sequence[str], *, without: Container[Path] = ()
) -> dict[str, Path]:
    """Partition → the file that has it; nothing for one that is not published, or is in a shared file of `without`."""
    found = {key: file for key in keys if (file := _own(folder, key)).exists()}
    numbered = [file for file in sorted(folder.glob("rows-*.duckdb")) if file not in without]
    if numbered and (rest := {*keys} - found.keys()):
        found |= _found_in(con, numbered, among("partition_key", sorted(rest)))
    return found


def is_shared(file: Path) -> bool:
    """Whether a file has partitions that its name does not tell."""
    return file.name.startswith("rows-")


def _own(folder: Path, key: str) -> Path:
    """The file of a large partition."""
    return folder / f"single-{url_quote(key, safe=' ')}.duckdb"


def _found_in(con: DuckDBPyConnection, files: Sequence[Path], where: str) -> dict[str, Path]:
    """Partition → the file that has it."""
    pattern = ", ".join(literal(glob.escape(str(file))) for file in files)
    rows = in_files(f"[{pattern}]", "ledger", "partitions", more=", filename = true")
    select = f"SELECT DISTINCT partition_key, filename FROM {rows} WHERE {where}"
    return {key: files[0].with_name(Path(file).name) for key, file in con.execute(select).fetchall()}


def _newest(folder: Path) -> Path:
    """The file for further partitions."""
    numbered = sorted(folder.glob("rows-*.duckdb"))
    if not numbered:
        return folder / "rows-0001.duckdb"
    if numbered[-1].stat().st_size < CAP:
        return numbered[-1]
    return folder / f"rows-{int(numbered[-1].stem.partition('-')[2]) + 1:04}.duckdb"


def detach(con: DuckDBPyConnection, names: Iterable[str]) -> None:
    """Detach these catalogs, where they are attached."""
    for name in names:
        con.execute(f"DETACH DATABASE IF EXISTS {name}")


def columns_of(con: DuckDBPyConnection, catalog: str) -> tuple[dict[Table, dict[str, str]], dict[Table, set[str]]]:
    """Of an attached file: table → columns and types, and table → those that are noted as STRUCTs in lists of one."""
    columns: dict[Table, dict[str, str]] = {}
    structs: dict[Table, set[str]] = {}
    select = (  # once for both: DuckDB binds the views of every attached file for it
        "SELECT schema_name, table_name, column_name, data_type, comment FROM duckdb_columns() "
        f"WHERE database_name = {literal(catalog)}"
    )
    for schema, table, column, sql_type, comment in con.execute(select).fetchall():
        columns.setdefault((schema, table), {})[column] = sql_type
        if comment == _LISTED:
            structs.setdefault((schema, table), set()).add(column)
    return columns, structs
