"""Locks of a shared warehouse: Postgres advisory locks, each held by the transaction of a cursor of its own.

Postgres hands a lock over in first-come order and releases it when its holder's connection ends, so a killed process
leaves nothing to clean up. Rows are only ever added and need no lock. The audit chain and the published files do: two
processes must not write them at once.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from pip_dagster.errors import WarehouseLockedError
from pip_dagster.sql.names import CATALOG, literal
from pip_dagster.warehouse import lock

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# The catalog's Postgres, attached by this name beside the warehouse.
LOCKS = "warehouse_lock"
APPLICATION = "pip_dagster"


def key_of(*parts: str) -> int:
    """A lock's number. Postgres has 64-bit ones, in a namespace that all users of a database share."""
    digest = hashlib.sha256("\0".join((APPLICATION, *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


WAREHOUSE = key_of("warehouse")


def this_process() -> str:
    """This process's name for administrators. A PID identifies it on its own host only."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_shared(con: DuckDBPyConnection) -> bool:
    """Whether other processes can write to the open warehouse at the same time."""
    found = con.execute(f"SELECT getvariable({literal(LOCKS)})").fetchone()
    return bool(found and found[0])


@contextmanager
def holding(con: DuckDBPyConnection, keys: Sequence[int]) -> Iterator[DuckDBPyConnection]:
    """Hold all of these locks; the cursor that holds them.

    Raises:
        WarehouseLockedError: one was not free within the declared deadline; names who holds it.
    """
    cursor = con.cursor()
    try:
        cursor.execute("BEGIN TRANSACTION")
        _lock(cursor, keys)
        yield cursor
    finally:
        _end(cursor)


def check(holder: DuckDBPyConnection) -> None:
    """Raise if the locks of this cursor were lost with its connection."""
    holder.execute(_query("SELECT 1 AS here")).fetchone()


def _lock(cursor: DuckDBPyConnection, keys: Sequence[int]) -> None:
    import duckdb

    deadline = lock.declared_deadline()
    # All processes lock in one order, so that no two wait for each other.
    locks = "; ".join(f"SELECT pg_advisory_xact_lock({key})" for key in sorted(keys))
    try:
        name = "the warehouse's lock in Postgres"
        with lock.reported_wait(name), lock.said_wait(lambda: f"{name}, up to {deadline:g} s"):
            _execute(cursor, f"SET LOCAL lock_timeout = {max(1, round(deadline * 1000))}; {locks}")
    except duckdb.Error as error:
        if "lock timeout" not in str(error):
            raise
        _end(cursor)
        raise WarehouseLockedError(
            f"The warehouse's lock in Postgres was not free within {deadline:g} s. {_holders(cursor, keys)} "
            "Wait for that process or end it; nothing was written."
        ) from None


def _execute(cursor: DuckDBPyConnection, statements: str) -> None:
    cursor.execute(f"CALL postgres_execute({literal(LOCKS)}, {literal(statements)})")


def _query(query: str) -> str:
    return f"SELECT * FROM postgres_query({literal(LOCKS)}, {literal(query)})"


def _end(cursor: DuckDBPyConnection) -> None:
    """The end of the transaction is the end of its locks."""
    import duckdb

    with suppress(duckdb.Error):
        cursor.execute("ROLLBACK")


def _holders(cursor: DuckDBPyConnection, keys: Sequence[int]) -> str:
    import duckdb

    listed = ", ".join(str(key) for key in keys)
    query = (
        "SELECT application_name AS name, coalesce(client_addr::text, 'this machine') AS place, "
        "xact_start::text AS since "
        "FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted "
        f"AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) IN ({listed})"
    )
    with suppress(duckdb.Error):
        found = cursor.execute(_query(query)).fetchall()
        if found:
            return " ".join(f"It is held by {name} from {place} since {since}." for name, place, since in found)
    return "Its holder is not known."


class Turn:
    """A transaction's turn to write. One process at a time has a file open, so there every transaction has its turn.

    If it is taken before the transaction begins, the transaction reads everything that is committed. If it is taken
    late, after long writes that need no turn, only the connection that `take` returns sees what others have committed
    meanwhile.
    """

    def __init__(self, con: DuckDBPyConnection, stack: ExitStack) -> None:
        self._con, self._stack = con, stack
        self.is_shared = is_shared(con)
        self._seen_by: DuckDBPyConnection | None = None if self.is_shared else con
        self._holder: DuckDBPyConnection | None = None
        self.begun = False  # set by `transaction`

    def take(self) -> DuckDBPyConnection:
        """Wait for the turn, which lasts until the transaction ends; a connection that sees all that is committed.

        Raises:
            WarehouseLockedError: it did not come within the declared deadline.
        """
        if self._seen_by is None:
            self._holder = self._stack.enter_context(holding(self._con, [WAREHOUSE]))
            self._seen_by = self._con
            if self.begun:
                self._seen_by = self._con.cursor()
                self._stack.callback(_end, self._seen_by)
                self._seen_by.execute(f"BEGIN TRANSACTION; USE {CATALOG}")  # it reads as of now
        return self._seen_by

    def check(self) -> None:
        """Before the commit: raise if the turn was lost with its connection."""
        if self._holder:
            check(self._holder)
