"""The schema version of a warehouse, and the migration of an older one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pip_dagster.errors import OlderWarehouseError, WarehouseError
from pip_dagster.warehouse.migrations import MIGRATIONS
from pip_dagster.warehouse.tables import is_there, refresh_views
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

VERSION = len(MIGRATIONS)


def ensure(con: DuckDBPyConnection, place: object, *, read_only: bool, new: Callable[[], None]) -> None:
    """Migrate the current catalog to this version, in one transaction; before it creates a ledger it calls `new`.

    Raises:
        WarehouseError: the warehouse has a newer version.
        OlderWarehouseError: it has an older one and is opened read-only.
    """
    found = version(con)
    if found == VERSION:
        return
    if found == 0:
        new()
    if found > VERSION:
        raise WarehouseError(
            f"{place} has schema version {found}, written by a newer pip_dagster; this one supports {VERSION}. "
            "Upgrade pip_dagster."
        )
    if read_only:
        raise OlderWarehouseError(
            f"{place} has schema version {found}, this pip_dagster needs {VERSION}. "
            "The next run that writes migrates it."
        )
    with transaction(con):
        # Another process may have migrated it while this one waited. In DuckDB 2 a failed look-up ends a transaction.
        found = version(con) if is_there(con, "ledger", "meta") else 0
        # Functions change rows, and DuckDB cannot add a column to a table whose rows the transaction changed.
        for script in sorted(MIGRATIONS[found:], key=callable):
            if callable(script):
                script(con)
            else:
                con.execute(script)
        for (pipeline,) in con.execute("SELECT DISTINCT pipeline FROM ledger.scorings ORDER BY 1").fetchall():
            refresh_views(con, pipeline)
        con.execute("DELETE FROM ledger.meta WHERE key = 'schema_version'")
        con.execute("INSERT INTO ledger.meta VALUES ('schema_version', $v)", {"v": str(VERSION)})


def version(con: DuckDBPyConnection) -> int:
    """The schema version of the current catalog; 0 for an empty one."""
    import duckdb

    try:  # to list what there is would take longer than the rest of an opening
        row = con.execute("SELECT value FROM ledger.meta WHERE key = 'schema_version'").fetchone()
    except duckdb.CatalogException:
        return 0
    return int(row[0]) if row else 0
