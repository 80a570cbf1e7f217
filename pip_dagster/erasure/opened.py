"""The warehouse as every place of an erasure opens it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project


@contextmanager
def opened(project: Project) -> Iterator[DuckDBPyConnection]:
    """For some transactions, as the current catalog; what is pending is published by the place of published files.

    Raises:
        WarehouseError: it cannot be written.
    """
    with workspace(threads=2) as con, writing(con, project, purpose="erasing", publish=False):
        yield con
