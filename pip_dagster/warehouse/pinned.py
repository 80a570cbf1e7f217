"""Several reads that see one state of their sources: a transaction, which is begun again after an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Connections with such a transaction, by their identity: what restores or checks the state after BEGIN.
_BEGINS: dict[int, Callable[[], None]] = {}


@contextmanager
def pinned(con: DuckDBPyConnection, begin: Callable[[], None]) -> Iterator[None]:
    """One transaction for everything within. `begin` is called in it first, again each time it is begun again."""
    con.execute("BEGIN TRANSACTION")
    try:
        begin()
        _BEGINS[id(con)] = begin
        yield
        con.execute("COMMIT")
    finally:
        _BEGINS.pop(id(con), None)
        roll_back(con)


def again(con: DuckDBPyConnection) -> None:
    """After an error, with which DuckDB ends a transaction: another one that sees the same state."""
    if begin := _BEGINS.get(id(con)):
        roll_back(con)
        con.execute("BEGIN TRANSACTION")
        begin()


def commit(con: DuckDBPyConnection) -> None:
    """Commit what the transaction wrote, and begin another one that sees the same state."""
    if id(con) in _BEGINS:
        con.execute("COMMIT")
        again(con)


def roll_back(con: DuckDBPyConnection) -> None:
    """End a transaction, where there is one; a server of its sources may be gone."""
    import duckdb

    with suppress(duckdb.Error):
        con.execute("ROLLBACK")
