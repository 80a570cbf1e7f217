"""A warehouse's file written again, so that deleted rows are nowhere in it: DuckDB keeps their bytes in free blocks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.errors import NoWarehouseError
from pip_dagster.sql.names import CATALOG, literal
from pip_dagster.warehouse import blocks, faults, lock
from pip_dagster.warehouse.connect import attached, workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_NEW = "pip_rewritten"


def rewrite_file(
    path: Path, *, purpose: str, before: Callable[[DuckDBPyConnection], None], columns: int = 0
) -> tuple[int, int]:
    """Copy everything into a new file, which replaces the old one with its WAL; the bytes before and after.

    `columns`: of the widest rows that it is to have, in addition to those that it has.

    It takes as much free space as the file. `before` is called with the warehouse open, before it is copied. Killed at
    any point, the old file or the new one is there, whole; call it again. Whoever reads the old file meanwhile goes on
    reading it, and its bytes are freed once they end.

    Raises:
        WarehouseError: the file is locked until the deadline, or the disk is full; the old file is then as it was.
    """
    new, seconds = path.with_name(path.name + ".rewritten"), lock.declared_deadline()
    if not path.is_file():
        raise NoWarehouseError(f"There is no warehouse {path} yet: materialize a partition first.")
    with (
        faults.of_warehouse(path),
        lock.exclusive(path.with_name(path.name + ".lock"), purpose=purpose, deadline=seconds),
    ):
        size = path.stat().st_size
        _remove(new)
        try:
            with workspace(threads=2) as con, attached(con, path, CATALOG, read_only=False, deadline=seconds):
                con.execute(f"USE {CATALOG}")
                before(con)
                con.execute(f"CHECKPOINT {CATALOG}")
                if blocks.is_wide(columns := max(columns, _widest(con))):
                    con.execute("SET threads = 1")  # each would pin blocks for all columns
                options = f"TYPE duckdb, STORAGE_VERSION 'v1.5.0'{blocks.options(columns)}"
                con.execute(f"ATTACH {literal(str(new))} AS {_NEW} ({options})")
                con.execute(f"COPY FROM DATABASE {CATALOG} TO {_NEW}")
                con.execute(f"CHECKPOINT {_NEW}")
                con.execute(f"DETACH {_NEW}")
            _sync(new)
            new.chmod(path.stat().st_mode & 0o777)
            new.replace(path)
            Path(f"{path}.wal").unlink(missing_ok=True)
            _sync(path.parent)
        finally:
            _remove(new)
        return size, path.stat().st_size


def _widest(con: DuckDBPyConnection) -> int:
    """The most columns of a table of the warehouse."""
    counted = "SELECT max(column_count) FROM duckdb_tables() WHERE database_name = current_database()"
    (found,) = con.execute(counted).fetchone() or (0,)
    return int(found or 0)


def _remove(file: Path) -> None:
    for each in (file, Path(f"{file}.wal")):
        each.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
