"""Many small transactions without keeping everybody else out: the warehouse is held for about a second at a time."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from pip_dagster.declaration.lake import Lake, is_transient
from pip_dagster.errors import OvertakenError, WarehouseError
from pip_dagster.warehouse import lock
from pip_dagster.warehouse.connect import open_warehouse
from pip_dagster.warehouse.published import publish_pending

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

T = TypeVar("T")
R = TypeVar("R")

WINDOW_SECONDS = 1.0
# Nobody waits for a lake to be closed, and opening one takes longer.
LAKE_WINDOW_SECONDS = 10.0


def in_windows(
    con: DuckDBPyConnection,
    project: Project,
    items: Sequence[T],
    work: Callable[[T], R],
    *,
    purpose: str,
    publish: bool = True,
) -> list[R]:
    """`work` on each item with the warehouse attached, letting others in between; then what it changed is published.

    Without `publish`, for what is never shown, a later window of the run does that.

    `work` makes its own transaction. Opening costs tens of milliseconds, a transaction one: so several share an
    opening, and an item that takes long has one to itself. Where a lake's transaction meets another's, or Postgres is
    away for a moment, its item is done once more, up to the deadline that holds for locks. Lost with its connection
    just when it was committed, it is then done twice: rows are added twice, the second time's are live.
    """
    waiting = deque(items)
    window = LAKE_WINDOW_SECONDS if isinstance(project.warehouse, Lake) else WINDOW_SECONDS
    results: list[R] = []
    tries = Tries()
    published = not items
    while waiting or not published:
        try:
            with open_warehouse(con, project.warehouse, purpose=purpose):
                until = time.monotonic() + window
                try:
                    first = True
                    while waiting and (first or time.monotonic() < until):
                        results.append(work(waiting[0]))
                        waiting.popleft()
                        first, tries = False, Tries()
                finally:
                    if publish:
                        publish_pending(con, project)
                published = True
        except Exception as error:
            tries.again_after(error, reached=bool(results))
            published = False
    return results


class Tries:
    """How often and how long a transaction is tried again."""

    def __init__(self) -> None:
        self._until = time.monotonic() + lock.declared_deadline()
        self._pause = 0.01

    def again_after(self, error: Exception, *, reached: bool = True) -> None:
        """Wait a little, so that not all who met try again in step.

        What has not been `reached` yet may be mistyped: opening it has waited as long as that is worth.

        Raises:
            Exception: the error, where another try would end as this one did, or the time is over.

        """
        worth_it = isinstance(error, OvertakenError) or is_transient(error)
        worth_it &= reached or not isinstance(error, WarehouseError)
        if not worth_it or time.monotonic() >= self._until:
            raise error
        time.sleep(random.uniform(0, self._pause))
        self._pause = min(2 * self._pause, 1.0)
