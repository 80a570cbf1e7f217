"""Where a report reads: the warehouse, or what is published where that cannot be read now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.errors import NoWarehouseError, StorageError, WarehouseLockedError
from pip_dagster.ledger.record import dicts
from pip_dagster.reporting.content import ReadFrom
from pip_dagster.warehouse import lock, schema
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.published_views import opened as published

if TYPE_CHECKING:
    from typing import Any

    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

# A run holds the warehouse for about a second at a time; published files can be read at any time.
_PATIENCE = 10.0


@dataclass(frozen=True)
class OpenLedger:
    """A connection with `ledger.partitions` and `ledger.checks`, and the tables that are there.

    `why_published`: why it is not the warehouse, which has every table; None for that.
    """

    con: DuckDBPyConnection
    tables: frozenset[tuple[str, str]]
    read_from: ReadFrom = "warehouse"
    why_published: str | None = None

    def has(self, schema: str, table: str) -> bool:
        """Whether a table or view can be read."""
        return (schema, table) in self.tables

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """A result as dictionaries."""
        return dicts(self.con.execute(sql))


@contextmanager
def opened(project: Project) -> Iterator[OpenLedger]:
    """The warehouse, read-only; what is published where it is locked, or not for this user; an empty ledger before it.

    Raises:
        OtherWarehouseError: as `reading`.
        WarehouseError: it is damaged, or neither can be read.
    """
    with ExitStack() as stack:
        con = stack.enter_context(workspace(threads=1))
        read_from: ReadFrom = "warehouse"
        why = None
        try:
            with lock.waiting_at_most(min(_PATIENCE, lock.declared_deadline())):
                stack.enter_context(reading(con, project, purpose="writing a report"))
        except (WarehouseLockedError, NoWarehouseError, StorageError) as error:
            why = str(error)
            if project.publishes and project.published_database.is_file():
                con, read_from = stack.enter_context(published(project)), "published files"
            elif isinstance(error, NoWarehouseError):
                schema.ensure(con, "memory", read_only=False, new=lambda: None)
                read_from = "nothing"
            else:
                raise
        yield OpenLedger(con, _tables(con), read_from, why)


def _tables(con: DuckDBPyConnection) -> frozenset[tuple[str, str]]:
    found = con.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database() UNION ALL "
        "SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = current_database()"
    ).fetchall()
    return frozenset((schema, name) for schema, name in found)
