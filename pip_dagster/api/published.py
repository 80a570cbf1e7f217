"""Reading the published files while the pipelines run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pip_dagster.ledger.record import dicts
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.published_views import opened

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project


@contextmanager
def open_published(project: Project) -> Iterator[DuckDBPyConnection]:
    """What is published, read-only, in UTC; nothing else can be read through it.

    If the project publishes nothing, the lake itself.

    Raises:
        WarehouseError: nothing has been published yet, or a file is damaged.
    """
    with opened(project) if project.publishes else _open_lake(project) as con:
        yield con


@contextmanager
def _open_lake(project: Project) -> Iterator[DuckDBPyConnection]:
    from pip_dagster.declaration.lake import Lake
    from pip_dagster.flow.engine import available_threads
    from pip_dagster.warehouse.access import reading
    from pip_dagster.warehouse.confine import confine
    from pip_dagster.warehouse.connect import workspace

    assert isinstance(project.warehouse, Lake)
    with (
        workspace(threads=available_threads()) as con,
        reading(con, project, purpose="reading"),
    ):
        confine(con, folders=[project.warehouse.data_path])
        yield con


def rows_of(con: DuckDBPyConnection, sql: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """A result as dictionaries. Texts and whole numbers are written into the SQL as literals.

    To bind a parameter, DuckDB imports pandas and pyarrow, which took most of a status command's time.
    """
    values = parameters or {}
    if all(isinstance(value, str) or type(value) is int for value in values.values()):
        written = {name: literal(value) if isinstance(value, str) else str(value) for name, value in values.items()}
        sql = re.sub(r"\$(\w+)", lambda match: written.get(match[1], match[0]), sql)
        values = {}
    return dicts(con.execute(sql, values) if values else con.execute(sql))


def pipelines(con: DuckDBPyConnection) -> list[str]:
    """The pipelines with published partitions."""
    return [row["pipeline"] for row in rows_of(con, "SELECT DISTINCT pipeline FROM ledger.partitions ORDER BY 1")]
