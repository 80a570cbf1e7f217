"""A change of a file of published rows: a new file is written beside it, then takes its name."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pip_dagster import clock
from pip_dagster.sql.names import among, but_for, literal, quote
from pip_dagster.warehouse import blocks
from pip_dagster.warehouse.connect import merges
from pip_dagster.warehouse.published_digest import record
from pip_dagster.warehouse.published_rows import Rows, Table, columns_of, detach, mark_structs, sync
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Partitions that are published again leave deleted rows, and come out of order. So one such change in so many, by
# chance, writes its file whole and in order.
_WHOLE_EVERY = 64

# What a change keeps of the present file: its bytes, in a copy that has those of replaced rows too; its other rows; or
# nothing, since it may be damaged.
Keep = Literal["bytes", "rows", "nothing"]

# The names of the new file and of the present one while a change is made.
_NEW, _PRESENT = "published", "published_before"


def change(
    con: DuckDBPyConnection,
    file: Path,
    keys: Sequence[str],
    read: Callable[[], Sequence[Rows]],
    check: Callable[[], None],
    *,
    keep: Keep,
    pipeline: str,
) -> dict[Table, frozenset[str]]:
    """Replace the rows of these partitions in a copy of the file, then the file by the copy.

    Returns the tables it fills, each with its columns of the type STRUCT.

    The digests of what the file then has of these partitions are recorded before, so they count once its changes do.

    `read` is called in the transaction that reads the rows: all are of one moment. `keep`: what of the present file.
    `check` is called last, and may refuse.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
        duckdb.Error: the same; or the present file is damaged.
    """
    is_new = not file.exists()
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            if file.exists() and keep != "nothing":
                con.execute(f"ATTACH {literal(str(file))} AS {_PRESENT} (READ_ONLY)")
            with transaction(con, late=True):
                this = _Change.of(con, keys, read())
                in_order = secrets.randbelow(_WHOLE_EVERY) > 0 or not this.replaces
                if copied := in_order and keep == "bytes" and this.may_copy() and blocks.fits(file, this.width):
                    shutil.copyfile(file, new)
                size = blocks.options(this.width)
                con.execute(f"ATTACH {literal(str(new))} AS {_NEW} (STORAGE_VERSION 'v1.5.0'{size})")
                this.replace() if copied else this.write_whole()
            with _merging(con):
                con.execute(f"CHECKPOINT {_NEW}")  # readers would read a log beside it
            tables = {rows.of(_NEW): rows for rows in this.filled}
            record(con, pipeline, f"{file.parent.name}/{file.name}", tables, this.of_written, clock.now())
        finally:
            detach(con, (_NEW, _PRESENT))
        check()
        new.replace(file)  # DuckDB has synced it
        sync(file.parent)
        if is_new:
            sync(file.parent.parent)
    finally:
        for left in (new, new.with_name(f"{new.name}.wal")):
            left.unlink(missing_ok=True)
    return {rows.table: rows.structs for rows in this.filled}


@contextmanager
def _merging(con: DuckDBPyConnection) -> Iterator[None]:
    """Have some checkpoints merge short row groups and drop deleted rows."""
    (before,) = con.execute("SELECT current_setting('max_vacuum_tasks')").fetchone() or (merges(),)
    con.execute(f"SET max_vacuum_tasks = {merges()}")
    try:
        yield
    finally:
        con.execute(f"SET max_vacuum_tasks = {before}")


@dataclass(frozen=True)
class _Change:
    """A change of one file.

    Attributes:
        of_keys: SQL that is true for the rows of the partitions to replace.
        of_others: SQL that is true for those of all others.
        present: Table → its columns and types in the present file; empty if nothing of that is to be kept.
        structs: Table → its columns there that are STRUCTs in lists of one.
        filled: Rows for the tables that the file will have.
        others: Tables without rows. `read_duckdb` demands each in every file, so they get a stub.
        of_one: Whether there will be one partition.
        replaces: Whether the present file has scorings of the partitions already.
    """

    con: DuckDBPyConnection
    of_keys: str
    of_others: str
    present: Mapping[Table, Mapping[str, str]]
    structs: Mapping[Table, set[str]]
    filled: Sequence[Rows]
    others: Sequence[Table]
    of_one: bool
    replaces: bool

    @classmethod
    def of(cls, con: DuckDBPyConnection, keys: Sequence[str], listed: Sequence[Rows]) -> _Change:
        """The change of the attached file that replaces the rows of these partitions by those in `listed`."""
        of_keys, of_others = among("partition_key", keys), but_for("partition_key", keys)
        present, structs = columns_of(con, _PRESENT)
        others = f"SELECT 1 FROM {_PRESENT}.ledger.partitions WHERE {of_others} LIMIT 1"
        if present and not con.execute(others).fetchone():
            present = {}
        filled = [rows for rows in listed if rows.select and (rows.always or _has(con, rows, present))]
        stubs = [rows.table for rows in listed if rows not in filled]
        of_one, replaces = len(keys) == 1 and not present, False
        if present:
            scored = f"SELECT 1 FROM {_PRESENT}.ledger.partitions WHERE {of_keys} LIMIT 1"
            replaces = con.execute(scored).fetchone() is not None
        return cls(con, of_keys, of_others, present, structs, filled, stubs, of_one, replaces)

    @property
    def width(self) -> int:
        """The most columns that a table will have."""
        return max([0, *(len(rows.columns) for rows in self.filled), *map(len, self.present.values())])

    @property
    def of_written(self) -> str:
        """SQL that is true for the rows, in the new file, of the partitions to replace."""
        return self.of_keys if self.present else "true"

    def may_copy(self) -> bool:
        """Whether the present file has every table, with the columns of the new rows."""
        there = all(table in self.present for table in self.others)
        return there and all(
            rows.columns.items() <= self.present.get(rows.table, {}).items()
            and rows.structs <= self.structs.get(rows.table, set())
            for rows in self.filled
        )

    def replace(self) -> None:
        """Replace the rows in a copy of the present file."""
        for rows in self.filled:
            if self.replaces or not rows.of_scorings:
                self.con.execute(f"DELETE FROM {rows.of(_NEW)} WHERE {self.of_keys}")
            self.con.execute(f"INSERT INTO {rows.of(_NEW)} BY NAME {self._ordered(rows, f'({rows.stored})')}")

    def write_whole(self) -> None:
        """Write a new file, with what is kept of the present one."""
        for schema in sorted({schema for schema, _ in (*self.others, *(rows.table for rows in self.filled))}):
            self.con.execute(f"CREATE SCHEMA {_NEW}.{quote(schema)}")
        for schema, name in self.others:
            self.con.execute(f"CREATE TABLE {_NEW}.{quote(schema)}.{quote(name)} (partition_key VARCHAR)")
        for rows in self.filled:
            select = f"({rows.stored})"
            if rows.table in self.present:
                kept = f"SELECT * FROM {rows.of(_PRESENT)} WHERE {self.of_others}"
                select = f"({rows.stored} UNION ALL BY NAME {kept})"
            self.con.execute(f"CREATE TABLE {rows.of(_NEW)} AS {self._ordered(rows, select)}")
            kept_structs = self.structs.get(rows.table, set()) if rows.table in self.present else set()
            mark_structs(self.con, rows.of(_NEW), rows.structs | kept_structs)

    def _ordered(self, rows: Rows, select: str) -> str:
        order = [] if self.of_one else ["partition_key"]
        order += [rows.order] if rows.order else []
        return f"SELECT * FROM {select}" + (f" ORDER BY {', '.join(order)}" if order else "")


def _has(con: DuckDBPyConnection, rows: Rows, present: Mapping[Table, Mapping[str, str]]) -> bool:
    """Whether there are rows, or were: a table that readers know stays."""
    if len(present.get(rows.table, ())) > 1:
        return True
    return not rows.none and con.execute(f"SELECT 1 FROM ({rows.select}) LIMIT 1").fetchone() is not None
