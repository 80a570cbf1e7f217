"""Many small transactions without keeping everybody else out: the warehouse is held for about a second at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from pip_dagster.warehouse.connect import open_warehouse
from pip_dagster.warehouse.published import publish_pending

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.project import Project

T = TypeVar("T")
R = TypeVar("R")

WINDOW_SECONDS = 1.0


def in_windows(
    con: DuckDBPyConnection, project: Project, items: Sequence[T], work: Callable[[T], R], *, purpose: str
) -> list[R]:
    """`work` on each item with the warehouse attached, letting others in between; then what it changed is published.

    `work` makes its own transaction. Opening costs tens of milliseconds, a transaction one: so several share an
    opening, and an item that takes long has one to itself.
    """
    waiting = deque(items)
    results: list[R] = []
    while waiting:
        with open_warehouse(con, project.warehouse, purpose=purpose):
            until = time.monotonic() + WINDOW_SECONDS
            try:
                while waiting and (not results or time.monotonic() < until):
                    results.append(work(waiting.popleft()))
            finally:
                publish_pending(con, project.published)
    return results
