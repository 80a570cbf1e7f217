"""Who waits for whom in a shared warehouse: Postgres advisory locks, held for a transaction of a cursor of their own.

Postgres hands a lock over in the order in which it was asked for, and frees it when its holder's connection ends, so
a killed process leaves nothing to clean up. Rows are only ever added and need no lock: it is the chain of the audit and
the published files that must not be written by two at once.
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
    """A lock's number: Postgres has 64-bit ones, a namespace that all of a database's users share."""
    digest = hashlib.sha256("\0".join((APPLICATION, *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


WAREHOUSE = key_of("warehouse")


def this_process() -> str:
    """How this process is named to administrators: PIDs are a host's own."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_shared(con: DuckDBPyConnection) -> bool:
    """Whether the open warehouse is one that others write to at the same time."""
    found = con.execute(f"SELECT getvariable({literal(LOCKS)})").fetchone()
    return bool(found and found[0])


@contextmanager
def holding(con: DuckDBPyConnection, keys: Sequence[int]) -> Iterator[DuckDBPyConnection]:
    """Hold all of these locks; the cursor that does.

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


@contextmanager
def holding_free(con: DuckDBPyConnection, keys: Sequence[int]) -> Iterator[set[int]]:
    """Hold those of these locks that nobody holds; which they are."""
    cursor = con.cursor()
    try:
        cursor.execute("BEGIN TRANSACTION")
        listed = ", ".join(f"({key}::bigint)" for key in sorted(keys))
        query = f"SELECT key FROM (VALUES {listed}) AS asked(key) WHERE pg_try_advisory_xact_lock(key)"
        yield {row[0] for row in cursor.execute(_query(query)).fetchall()}
    finally:
        _end(cursor)


def _lock(cursor: DuckDBPyConnection, keys: Sequence[int]) -> None:
    import duckdb

    deadline = lock.declared_deadline()
    # Everybody in one order, so that no two wait for each other.
    asked = "; ".join(f"SELECT pg_advisory_xact_lock({key})" for key in sorted(keys))
    try:
        _execute(cursor, f"SET LOCAL lock_timeout = {max(1, round(deadline * 1000))}; {asked}")
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
    """A transaction's turn among those that write. On a file, which one process at a time has open, it is always its.

    Taken before the transaction begins, everything it reads is what was committed last. Taken late, after long writes
    that need no turn, what others have committed meanwhile is only seen by the connection that `take` gives.
    """

    def __init__(self, con: DuckDBPyConnection, stack: ExitStack) -> None:
        self._con, self._stack = con, stack
        self.is_shared = is_shared(con)
        self._seen_by: DuckDBPyConnection | None = None if self.is_shared else con
        self._holder: DuckDBPyConnection | None = None
        self.begun = False  # by the transaction

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
                self._seen_by.execute(f"BEGIN TRANSACTION; USE {CATALOG}")  # as of now, for all that it is asked
        return self._seen_by

    def check(self) -> None:
        """Before the commit: raise where the turn was lost with its connection."""
        if self._holder:
            self._holder.execute(_query("SELECT 1 AS here")).fetchone()
