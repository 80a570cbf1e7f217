"""The DuckDB files that hold a pipeline's published rows. None is ever written in place.

DuckDB opens a Parquet file twice for one query, so a reader of one that is replaced meets two halves. A DuckDB file it
opens once: a reader sees the file before the change or the one after it, and with it all rows of a partition.

A partition stays in its file. New ones go to the newest file until it has reached `CAP`, so that a change costs the
same after any history. A large partition has a file of its own.
"""

from __future__ import annotations

import glob
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote as url_quote

from pip_dagster.sql.names import among, literal, quote
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CAP = 64 * 2**20  # bytes, from which a file gets no further partitions
LARGE = 200_000  # rows, from which a partition has a file of its own
_AT_ONCE = 2_000_000  # rows of new partitions that one change adds

# Changes leave gaps and short row groups, so one change in so many, by chance, writes its file whole and in order.
_WHOLE_EVERY = 256

# The names of the new file and of the present one while a change is made.
_NEW, _PRESENT = "published", "published_before"


Table = tuple[str, str]  # schema and name


@dataclass(frozen=True)
class Rows:
    """The rows of some partitions for one table.

    Attributes:
        table: Where they go.
        select: SQL of the rows; None if the pipeline has no such table.
        columns: Their names and SQL types.
        order: The column by which a partition's rows are ordered.
        always: Have the table although it has no rows.
    """

    table: Table
    select: str | None
    columns: Mapping[str, str]
    order: str | None
    always: bool

    def of(self, catalog: str) -> str:
        """The table in this catalog, qualified and quoted."""
        return f"{catalog}.{quote(self.table[0])}.{quote(self.table[1])}"


def in_files(files: str, schema: str, table: str, *, more: str = "") -> str:
    """SQL of the rows of a table in all the files that match: a literal, or a list of them."""
    return (
        f"read_duckdb({files}, schema_name = {literal(schema)}, table_name = {literal(table)}, "
        f"union_by_name = true{more})"
    )


def files_of(folder: Path) -> list[Path]:
    """The files with the rows of a pipeline, whose folder this is."""
    return sorted(folder.glob("*.duckdb"))


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


def tables_of(con: DuckDBPyConnection, file: Path) -> set[Table]:
    """The tables of a file that are more than a stub."""
    with _detached_after(con):
        con.execute(f"ATTACH {literal(str(file))} AS {_PRESENT} (READ_ONLY)")
        return {table for table, columns in _columns(con).items() if len(columns) > 1}


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
    for key, file in found.items():
        by_file.setdefault(file, []).append(key)
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


def change(
    con: DuckDBPyConnection,
    file: Path,
    keys: Sequence[str],
    read: Callable[[], Sequence[Rows]],
    check: Callable[[], None],
    *,
    anew: bool,
) -> set[Table]:
    """Replace the rows of these partitions in a copy of the file, then the file by the copy; the tables it fills.

    `read` is called in the transaction that reads the rows: all are of one moment. `anew`: keep nothing of the present
    file, which may be damaged. `check` is called last, and may refuse.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
        duckdb.Error: the same; or the present file is damaged.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        with _detached_after(con):
            if file.exists() and not anew:
                con.execute(f"ATTACH {literal(str(file))} AS {_PRESENT} (READ_ONLY)")
            with transaction(con, late=True):
                this = _Change.of(con, keys, read())
                if copied := this.may_copy() and secrets.randbelow(_WHOLE_EVERY) > 0:
                    shutil.copyfile(file, new)
                con.execute(f"ATTACH {literal(str(new))} AS {_NEW} (STORAGE_VERSION 'v1.5.0')")
                this.replace() if copied else this.write_whole()
            con.execute(f"CHECKPOINT {_NEW}")  # readers would read a log beside it
        check()
        new.replace(file)
        _sync(file.parent)
    finally:
        for left in (new, new.with_name(f"{new.name}.wal")):
            left.unlink(missing_ok=True)
    return {rows.table for rows in this.filled}


@dataclass(frozen=True)
class _Change:
    """A change of one file.

    Attributes:
        of_keys: SQL that is true for the rows of the partitions to replace.
        present: Table → its columns and types in the present file; empty if nothing of that is to be kept.
        filled: Rows for the tables that the file will have.
        others: Tables without rows. `read_duckdb` demands each in every file, so they get a stub.
        of_one: Whether there will be one partition.
    """

    con: DuckDBPyConnection
    of_keys: str
    present: Mapping[Table, Mapping[str, str]]
    filled: Sequence[Rows]
    others: Sequence[Table]
    of_one: bool

    @classmethod
    def of(cls, con: DuckDBPyConnection, keys: Sequence[str], listed: Sequence[Rows]) -> _Change:
        """The change of the attached file that replaces the rows of these partitions by those in `listed`."""
        of_keys = among("partition_key", keys)
        present = _columns(con)
        others = f"SELECT 1 FROM {_PRESENT}.ledger.partitions WHERE NOT ({of_keys}) LIMIT 1"
        if present and not con.execute(others).fetchone():
            present = {}
        filled = [rows for rows in listed if rows.select and (rows.always or _has(con, rows, present))]
        stubs = [rows.table for rows in listed if rows not in filled]
        return cls(con, of_keys, present, filled, stubs, of_one=len(keys) == 1 and not present)

    def may_copy(self) -> bool:
        """Whether the present file has every table, with the columns of the new rows."""
        there = all(table in self.present for table in self.others)
        return there and all(rows.columns.items() <= self.present.get(rows.table, {}).items() for rows in self.filled)

    def replace(self) -> None:
        """Replace the rows in a copy of the present file."""
        for rows in self.filled:
            self.con.execute(f"DELETE FROM {rows.of(_NEW)} WHERE {self.of_keys}")
            self.con.execute(f"INSERT INTO {rows.of(_NEW)} BY NAME {self._ordered(rows, f'({rows.select})')}")

    def write_whole(self) -> None:
        """Write a new file, with what is kept of the present one."""
        for schema in sorted({schema for schema, _ in (*self.others, *(rows.table for rows in self.filled))}):
            self.con.execute(f"CREATE SCHEMA {_NEW}.{quote(schema)}")
        for schema, name in self.others:
            self.con.execute(f"CREATE TABLE {_NEW}.{quote(schema)}.{quote(name)} (partition_key VARCHAR)")
        for rows in self.filled:
            select = f"({rows.select})"
            if rows.table in self.present:
                kept = f"SELECT * FROM {rows.of(_PRESENT)} WHERE NOT ({self.of_keys})"
                select = f"({rows.select} UNION ALL BY NAME {kept})"
            self.con.execute(f"CREATE TABLE {rows.of(_NEW)} AS {self._ordered(rows, select)}")

    def _ordered(self, rows: Rows, select: str) -> str:
        order = [] if self.of_one else ["partition_key"]
        order += [rows.order] if rows.order else []
        return f"SELECT * FROM {select}" + (f" ORDER BY {', '.join(order)}" if order else "")


def _has(con: DuckDBPyConnection, rows: Rows, present: Mapping[Table, Mapping[str, str]]) -> bool:
    """Whether there are rows, or were: a table that readers know stays."""
    had = len(present.get(rows.table, ())) > 1
    return had or con.execute(f"SELECT 1 FROM ({rows.select}) LIMIT 1").fetchone() is not None


@contextmanager
def _detached_after(con: DuckDBPyConnection) -> Iterator[None]:
    try:
        yield
    finally:
        for name in (_NEW, _PRESENT):
            con.execute(f"DETACH DATABASE IF EXISTS {name}")


def _columns(con: DuckDBPyConnection) -> dict[Table, dict[str, str]]:
    """Table → columns and types of the present file, if one is attached."""
    found: dict[Table, dict[str, str]] = {}
    select = "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() WHERE database_name = "
    for schema, table, column, sql_type in con.execute(select + literal(_PRESENT)).fetchall():
        found.setdefault((schema, table), {})[column] = sql_type
    return found


def _sync(folder: Path) -> None:
    """Have the new name of a file outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
