"""The warehouse as every place of an erasure opens it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pip_dagster.errors import StorageError
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project


_LOG = logging.getLogger(__name__)


@contextmanager
def opened(project: Project) -> Iterator[DuckDBPyConnection]:
    """For some transactions, as the current catalog; what is pending is published by the place of published files.

    Raises:
        WarehouseError: it cannot be written.
    """
    with workspace(threads=2) as con, writing(con, project, purpose="erasing", publish=False):
        yield con


@contextmanager
def recording(project: Project) -> Iterator[DuckDBPyConnection]:
    """For one transaction. Where the disk is too full to close the warehouse behind it, that is only logged.

    Raises:
        WarehouseError: it cannot be written; nothing was recorded.
    """
    committed = False
    try:
        with opened(project) as con:
            with transaction(con):
                yield con
            committed = True
    except StorageError as error:
        if not committed:
            raise
        # DuckDB has it in the log of writes, which the next process to open the warehouse reads.
        _LOG.warning("It is recorded, and need not be repeated; but the warehouse was not closed in order. %s", error)
