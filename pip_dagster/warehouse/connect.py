"""Connections: an in-memory DuckDB that attaches what it needs, for no longer than it needs it."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.declaration.lake import Lake
from pip_dagster.errors import (
    NoWarehouseError,
    SourceError,
    SourceLockedError,
    SpillError,
    WarehouseError,
    WarehouseLockedError,
)
from pip_dagster.sql.names import CATALOG, literal, quote
from pip_dagster.warehouse import blocks, faults, lock, memory, schema
from pip_dagster.warehouse.confine import CONFINED
from pip_dagster.warehouse.interrupts import interruptible
from pip_dagster.warehouse.lake_connection import opened
from pip_dagster.warehouse.lock_file import may_open

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# DuckDB's errors when another process has the file open. No other error is worth waiting for.
LOCKED = ("Could not set lock on file", "Conflicting lock", "database is locked", "Unique file handle conflict")

# A checkpoint writes what is new. DuckDB then merges it with a table's newest rows, up to 2,048 of them, and takes the
# longer the more there are. Merging at every fourth, by chance, leaves readers few more pieces, and files 0.5 MB each.
_MERGE_EVERY = 4
_MERGES = 100  # DuckDB's own default, in pieces a table


def merges() -> int:
    """How many pieces of a table the next checkpoint may merge."""
    return 0 if secrets.randbelow(_MERGE_EVERY) else _MERGES


@contextmanager
def workspace(*, threads: int, memory_limit: str | None = None) -> Iterator[DuckDBPyConnection]:
    """An in-memory connection in UTC for one piece of work; data that exceeds memory spills to a folder of its own.

    Cancelling ends its queries: see `interrupts`. PIP_DAGSTER_MEMORY_LIMIT takes precedence over `memory_limit`;
    without either DuckDB has `all_memory`.

    Raises:
        SpillError: the folder is full, gone, or cannot be created.
        MemoryLimitError: the work needs more memory than the limit.
        WarehouseError: PIP_DAGSTER_MEMORY_LIMIT is not a size.
    """
    import duckdb

    limit = memory.declared_memory_limit() or memory_limit or f"{memory.all_memory() / 1e6:.0f}MB"
    place = _temporary_folder()
    _remove_spills_of_dead_processes()
    with faults.of_spill(place):
        spill = Path(tempfile.mkdtemp(prefix=f"{faults.SPILL}{_host()}_{os.getpid()}_"))
    con = duckdb.connect(":memory:", config=CONFINED | {"temp_directory": str(spill), "threads": threads})
    try:
        con.execute("SET TimeZone = 'UTC'")
        con.execute("SET enable_progress_bar = false")
        # Keys identify rows. To preserve their order, one thread would have to stage and store them, and what it needs
        # for that grows with the rows.
        con.execute("SET preserve_insertion_order = false")
        con.execute(f"SET memory_limit = {literal(limit)}")
        with interruptible(con), faults.of_spill(spill), _of_memory(con):
            yield con
    finally:
        con.close()
        shutil.rmtree(spill, ignore_errors=True)


def spill_folder(con: DuckDBPyConnection) -> Path:
    """The spill folder of a workspace, for files that its work needs meanwhile."""
    row = con.execute("SELECT current_setting('temp_directory')").fetchone()
    assert row
    return Path(row[0])


@contextmanager
def _of_memory(con: DuckDBPyConnection) -> Iterator[None]:
    """Report that memory ran out as an error that names the limit.

    Raises:
        MemoryLimitError: it did, and more was not to be had.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or memory.is_out_of_memory(error):
            raise memory.limit_error(con, error) from error
        raise


@contextmanager
def reading_beside(con: DuckDBPyConnection) -> Iterator[DuckDBPyConnection]:
    """A cursor to read from while `con` writes: both through one connection deadlock DuckDB 1.5."""
    reading = con.cursor()
    try:
        with interruptible(reading):
            yield reading
    finally:
        reading.close()


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise SpillError(f"{error.strerror}. Set TMPDIR to a folder that can be written.") from error


def _remove_spills_of_dead_processes() -> None:
    """A killed process cannot remove its own folder, which may hold gigabytes. A PID identifies it on its own host."""
    if not Path("/proc/self").exists():
        return
    mine = f"{faults.SPILL}{_host()}_"
    for folder in Path(tempfile.gettempdir()).glob(f"{mine}*_*"):
        pid = folder.name.removeprefix(mine).split("_")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _host() -> str:
    return "".join(c for c in socket.gethostname() if c.isalnum())


@contextmanager
def attached(
    con: DuckDBPyConnection, path: Path, name: str, *, read_only: bool, deadline: float | None = None, columns: int = 0
) -> Iterator[None]:
    """Attach the DuckDB file `path` as `name`, waiting until the deadline while another process has it locked.

    `columns`: of the widest rows that are written to it.

    Raises:
        SourceError: the file is absent (read-only), is not a DuckDB file, or stayed locked; names its holder.
    """
    if read_only and not path.is_file():
        raise SourceError(f"There is no DuckDB file {path}. Create it, or correct its path in the declaration.")
    deadline = lock.declared_deadline() if deadline is None else deadline
    # By default, DuckDB 2.0 writes files that 1.5 cannot open.
    # Without the type, DuckDB would look for an extension that reads the file, in the Internet too.
    options = "TYPE duckdb, "
    if read_only:
        options += "READ_ONLY"
    else:
        options += "STORAGE_VERSION 'v1.5.0'" + blocks.options(columns, new=_is_new(path))
    _attach(con, path, f"ATTACH {literal(str(path))} AS {quote(name)} ({options})", deadline)
    try:
        yield
    finally:
        con.execute("USE memory")
        con.execute(f"DETACH {quote(name)}")


def _is_new(path: Path) -> bool:
    return not path.is_file() or not path.stat().st_size


def _attach(con: DuckDBPyConnection, path: Path, statement: str, deadline: float) -> None:
    until, said = time.monotonic() + deadline, ""
    with lock.said_wait(lambda: said and f"{path}, up to {deadline:g} s. {said}"):
        while True:
            try:
                con.execute(statement)
                break
            except Exception as error:
                if not any(text in str(error) for text in LOCKED):
                    raise SourceError(f"{path} cannot be opened as a DuckDB file: {error}") from error
                said = str(error).splitlines()[0]
                if time.monotonic() >= until:
                    raise SourceLockedError(
                        f"{path} stayed locked by another process for {deadline:g} s: {said}"
                    ) from error
                time.sleep(random.uniform(0.05, 0.2))


@contextmanager
def open_warehouse(
    con: DuckDBPyConnection,
    place: Path | Lake,
    *,
    purpose: str,
    read_only: bool = False,
    deadline: float | None = None,
    new: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """The warehouse attached to `con` as the default catalog: for one read, or a few transactions.

    A writer first migrates an older schema. A file is locked meanwhile, for readers too: DuckDB cannot write a file
    that another process reads. A lake is open to all, and a reader sees it as of one moment. `new` is called where
    there is no ledger yet, before one is created; it may refuse that. A project's warehouse is opened by `access`.

    Raises:
        WarehouseError: locked until the deadline, unreadable, on a full disk, or written by a newer version.
    """
    seconds = deadline if deadline is not None else lock.declared_deadline()
    if isinstance(place, Lake):
        with opened(con, place, purpose=purpose, read_only=read_only, deadline=seconds, new=new):
            yield
        return
    path = place
    with ExitStack() as stack:
        stack.enter_context(faults.of_warehouse(path))
        if path.is_dir():
            raise WarehouseError(f"The warehouse {path} is a folder; expected a file. Correct `warehouse`, or move it.")
        if _is_new(path):
            new()
            if read_only:
                raise NoWarehouseError(f"There is no warehouse {path} yet: materialize a partition first.")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_file = path.with_name(path.name + ".lock")
        # A reader without the right to the lock waits for DuckDB's own, which its process then holds while it reads.
        if not read_only or may_open(lock_file):
            stack.enter_context(lock.exclusive(lock_file, purpose=purpose, deadline=seconds))
        try:
            columns = memory.noted_columns(con)
            with attached(con, path, CATALOG, read_only=read_only, deadline=seconds, columns=columns):
                con.execute(f"USE {CATALOG}")
                schema.ensure(con, path, read_only=read_only, new=new)
                if not read_only:
                    con.execute(f"SET max_vacuum_tasks = {merges()}")
                yield
        except SourceLockedError as error:
            raise WarehouseLockedError(
                f"{error}\nClose that connection; readers should open the published database instead."
            ) from error
        except SourceError as error:
            raise WarehouseError(str(error)) from error
