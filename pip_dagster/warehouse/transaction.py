"""Transactions of the warehouse begin, commit and roll back in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from pip_dagster.warehouse import advisory

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@contextmanager
def transaction(con: DuckDBPyConnection, *, late: bool = False) -> Iterator[advisory.Turn]:
    """BEGIN, then COMMIT; ROLLBACK after any exception, an interrupt included.

    In a shared warehouse it is the only writer from its start; with `late`, from when it takes the turn that is
    yielded, if it ever does.
    """
    with ExitStack() as stack:
        turn = advisory.Turn(con, stack)
        if not late:
            turn.take()
        con.execute("BEGIN TRANSACTION")
        turn.begun = True
        try:
            yield turn
            turn.check()
            con.execute("COMMIT")
        except BaseException:
            # A failed COMMIT has already rolled back.
            import duckdb

            con.interrupt()  # a query that was left for a signal still runs in DuckDB's threads
            with suppress(duckdb.TransactionException):
                con.execute("ROLLBACK")
            raise
