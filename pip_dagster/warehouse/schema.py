"""The warehouse's own tables and how an older file becomes one of this version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster.errors import WarehouseError
from pip_dagster.warehouse.migrations import MIGRATIONS
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

VERSION = len(MIGRATIONS)


def ensure(con: DuckDBPyConnection, place: object, *, read_only: bool) -> None:
    """Bring the current catalog to this version, all of it in one transaction.

    Raises:
        WarehouseError: the warehouse is of a newer version, or of an older one and only opened to read.

    """
    found = version(con)
    if found == VERSION:
        return
    if found > VERSION:
        raise WarehouseError(
            f"{place} has schema version {found}, made by a newer pip_dagster; this one knows {VERSION}. Upgrade it."
        )
    if read_only:
        raise WarehouseError(
            f"{place} has schema version {found}, this pip_dagster needs {VERSION}: any run that writes migrates it."
        )
    from pip_dagster.warehouse.tables import refresh_views

    with transaction(con):
        found = version(con)  # somebody else may have done it while this one waited for its turn
        for script in MIGRATIONS[found:]:
            con.execute(script)
        for (pipeline,) in con.execute("SELECT DISTINCT pipeline FROM ledger.scorings ORDER BY 1").fetchall():
            refresh_views(con, pipeline)
        con.execute("DELETE FROM ledger.meta WHERE key = 'schema_version'")
        con.execute("INSERT INTO ledger.meta VALUES ('schema_version', $v)", {"v": str(VERSION)})


def version(con: DuckDBPyConnection) -> int:
    """The schema version of the current catalog; 0 for an empty one."""
    from pip_dagster.warehouse.tables import is_there

    if not is_there(con, "ledger", "meta"):
        return 0
    row = con.execute("SELECT value FROM ledger.meta WHERE key = 'schema_version'").fetchone()
    return int(row[0]) if row else 0
