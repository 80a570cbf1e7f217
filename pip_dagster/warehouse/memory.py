"""The memory that DuckDB may have: for so many columns, and more for a query that cannot do with it.

DuckDB pins a block of 256 KB for each column that a thread reads from a file or appends to a table, however few rows
there are. What a run needs therefore grows with the columns; rows beyond its limit spill to disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pip_dagster.errors import MemoryLimitError, WarehouseError
from pip_dagster.sql.names import CATALOG, literal
from pip_dagster.warehouse import blocks, container, pinned

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

T = TypeVar("T")

VARIABLE = "PIP_DAGSTER_MEMORY_LIMIT"
# Staged rows fill whatever DuckDB may have, and spilling beyond it costs little; with this a million rows of 20 columns
# nearly fill it on two threads.
_MEGABYTES_A_THREAD = 96
_MEGABYTES_A_COLUMN = 1.0
# Of rows in small blocks. Vectors of as many columns come in addition, beyond the limit: some 0.13 MB each.
_MEGABYTES_A_COLUMN_IN_SMALL_BLOCKS = 0.1
# Measured with 2,000 columns: sorting and staging them takes this much for each thread and column.
_MEGABYTES_A_COLUMN_AND_THREAD = 0.75
# What Python, the libraries, the model and a few batches take.
_MEGABYTES_OF_PROCESS = 400
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@dataclass(frozen=True)
class Room:
    """What a connection may use: memory in bytes, and threads, each of which needs some of it."""

    limit: float
    threads: int

    @classmethod
    def of(cls, con: DuckDBPyConnection) -> Room:
        """What it may use now."""
        row = con.execute("SELECT current_setting('memory_limit'), current_setting('threads')").fetchone()
        assert row
        return cls(_bytes(row[0]), row[1])

    def give(self, con: DuckDBPyConnection) -> None:
        """The one place that changes a connection's limit and threads; its configuration must not be locked."""
        # DuckDB reports a limit with one digit, rounded down; a little more is reported as the same.
        con.execute(f"SET memory_limit = '{self.limit / 2**20 + 0.05:.3f}MiB'")
        con.execute(f"SET threads = {self.threads}")

    def larger(self, databases: int = 1) -> Room | None:
        """What to retry with: twice the memory, unless the user limits it or there is no more, or one thread.

        Each of so many databases gets it.
        """
        most = all_memory() / databases
        if not declared_memory_limit() and self.limit < most:
            return replace(self, limit=min(2 * self.limit, most))
        return replace(self, threads=1) if self.threads > 1 else None


def declared_memory_limit() -> str | None:
    """The memory that the user allows DuckDB.

    Raises:
        WarehouseError: the variable is not a size.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if text and not re.fullmatch(r"(?=.*[1-9])\d+(\.\d+)?\s*([KMGT]i?B|%)", text, re.IGNORECASE):
        raise WarehouseError(f"{VARIABLE} is {text!r}; expected a size, such as 8GB.")
    return text or None


def all_memory() -> float:
    """The most that DuckDB may have, in bytes: 80% of memory, and less where a process's own share would not fit.

    Of a container's memory, not the machine's: its kernel kills a process that exceeds it.
    """
    memory = container.memory()
    return max(min(0.8 * memory, memory - _MEGABYTES_OF_PROCESS * 1e6), memory / 4)


def run_memory(threads: int) -> str:
    """What a run starts with, before its columns are known."""
    return f"{min(_needed(0, threads), all_memory()) / 1e6:.0f}MB"


def make_room(con: DuckDBPyConnection, columns: int, threads: int, *, share: float = 1.0, small: bool = False) -> None:
    """Give a run the memory for rows of so many columns, and no more of its `threads` than that is enough for.

    `share`: of the part that does not depend on the columns, where another database has memory too. `small`: whether
    all that it reads and writes has small blocks.
    """
    note_columns(con, columns)
    limit = Room.of(con).limit
    if not declared_memory_limit():
        limit = min(_needed(columns, threads, share, small=small), all_memory())
    fitting = int(limit / (max(1, columns) * _MEGABYTES_A_COLUMN_AND_THREAD * 1e6))
    Room(limit, max(1, min(threads, fitting))).give(con)


@contextmanager
def shared(con: DuckDBPyConnection, other: DuckDBPyConnection) -> Iterator[None]:
    """Give two databases half of what `con` may have, each; `con` has what it had again afterwards."""
    import duckdb

    before = Room.of(con)
    half = replace(before, limit=before.limit / 2)
    half.give(other)
    with suppress(duckdb.OutOfMemoryException):  # what it holds already can neither be dropped nor spilled
        half.give(con)
    try:
        for each in (con, other):
            each.execute("SET VARIABLE pip_databases = 2")  # for the value that an error names
        yield
    finally:
        with suppress(duckdb.OutOfMemoryException):
            before.give(con)
        con.execute("SET VARIABLE pip_databases = 1")


def undivided(con: DuckDBPyConnection) -> None:
    """Give the second of two databases that share memory all of it, while the first one does nothing."""
    room = Room.of(con)
    replace(room, limit=2 * room.limit).give(con)
    con.execute("SET VARIABLE pip_databases = 1")


def note_columns(con: DuckDBPyConnection, columns: int) -> None:
    """Keep in mind how wide the rows are that a connection reads, for the value that an error names."""
    con.execute(f"SET VARIABLE pip_columns = {columns}")


def noted_columns(con: DuckDBPyConnection) -> int:
    """How wide the rows are, as it was noted; 0 if it was not."""
    noted = con.execute("SELECT getvariable('pip_columns')").fetchone()
    return int((noted and noted[0]) or 0)


def _needed(columns: int, threads: int, share: float = 1.0, *, small: bool = False) -> float:
    a_column = _MEGABYTES_A_COLUMN_IN_SMALL_BLOCKS if small else _MEGABYTES_A_COLUMN
    return share * max(2, threads) * _MEGABYTES_A_THREAD * 1e6 + columns * a_column * 1e6


def rows_for(rows: int, columns: int) -> int:
    """How many rows of so many columns take the place of `rows` of 50 columns."""
    return max(1, rows * 50 // max(50, columns))


def with_more(con: DuckDBPyConnection, work: Callable[[], T], *, beside: DuckDBPyConnection | None = None) -> T:
    """The result of `work`, which is retried with more memory while it runs out of it.

    Outside a transaction, but for one of `pinned`.

    `beside`: another database that it uses, which gets as much. Afterwards each has the limit and threads of before.

    Raises:
        MemoryLimitError: there is no more.
    """
    import duckdb

    rooms: dict[DuckDBPyConnection, Room] = {}
    room: Room | None = None
    try:
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                rooms = rooms or {each: Room.of(each) for each in (con, beside) if each is not None}
                larger = (room or rooms[con]).larger(len(rooms))
                if larger is None:
                    raise limit_error(con, error) from error
                room = larger
                pinned.again(con)
                for each in rooms:
                    room.give(each)
    finally:
        for each, before in rooms.items():
            if room not in (None, rooms[con]):
                with suppress(duckdb.Error):  # what is pinned still exceeds it
                    before.give(each)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether DuckDB, which wraps errors of batches and commits, ran out of its memory; not of disk to spill to."""
    import duckdb

    text = str(error)
    out = "Out of Memory Error" in text or re.search(r"(allocate|pin) (block|data) of size .* used\)", text)
    return isinstance(error, duckdb.Error) and bool(out) and "max_temp_directory_size" not in text


def limit_error(con: DuckDBPyConnection, error: BaseException) -> MemoryLimitError:
    """One sentence that names the limit, and how to raise it."""
    room, why = Room.of(con), _first_line(error)
    if isinstance(error, MemoryError):
        return MemoryLimitError(
            f"This machine has too little memory beside what DuckDB uses ({why}): run fewer partitions at a time, or "
            f"let DuckDB use less with {VARIABLE}={room.limit / 2e9:.1f}GB."
        )
    columns = noted_columns(con)
    shared = con.execute("SELECT getvariable('pip_databases')").fetchone()
    databases = int((shared and shared[0]) or 1)
    wanted = f"{VARIABLE}={databases * max(2 * room.limit, _needed(columns, room.threads)) / 1e9:.1f}GB"
    what = f"rows of {columns:,} columns" if columns else "this query"
    if declared := declared_memory_limit():
        has = f"{VARIABLE} is {declared}"
        advice = f"set {wanted} or more, or unset it, which gives a run what its columns need"
    else:
        has = f"DuckDB may use {databases * room.limit / 1e9:.1f} of this machine's {container.memory() / 1e9:.1f} GB"
        advice = f"run fewer partitions at a time, or set {wanted} where there is as much"
    if not blocks.fits(_warehouse(con), columns):
        advice = f"give the warehouse smaller blocks with `pip-dagster maintain --small-blocks`; else {advice}"
    return MemoryLimitError(f"{has}, which is not enough for {what} ({why}): {advice}.")


def _warehouse(con: DuckDBPyConnection) -> Path:
    """The file of the attached warehouse; no file without one."""
    select = f"SELECT path FROM duckdb_databases() WHERE database_name = {literal(CATALOG)}"
    (path,) = con.execute(select).fetchone() or ("",)
    return Path(path or "")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _bytes(text: str) -> float:
    number, unit = text.split()
    return float(number) * _UNITS[unit]
