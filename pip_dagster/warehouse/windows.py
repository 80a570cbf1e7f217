"""Many small transactions that let other processes in between: each window holds the warehouse for about a second."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pip_dagster.declaration.lake import Lake, is_transient
from pip_dagster.errors import OvertakenError, StorageError, WarehouseError
from pip_dagster.warehouse import lock
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.memory import with_more

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

T = TypeVar("T")
R = TypeVar("R")

WINDOW_SECONDS = 1.0
# No process waits for a lake to be closed, and opening one takes longer.
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
    """Call `work` on each item with the warehouse attached, with pauses for other processes; then publish the changes.

    Without `publish`, for rows that readers never see, a later window of the run publishes.

    `work` runs its own transaction. Opening costs tens of milliseconds, a transaction one: several items share an
    opening, and an item that takes long has one to itself. If a lake's transactions conflict, or Postgres is
    unreachable for a moment, the item is retried, up to the deadline for locks. If the connection is lost just as the
    item commits, the retry adds its rows a second time, and those are live.
    """
    waiting = deque(items)
    window = LAKE_WINDOW_SECONDS if isinstance(project.warehouse, Lake) else WINDOW_SECONDS
    results: list[R] = []
    retries = Retries()
    published = not items
    while waiting or not published:
        try:
            with writing(con, project, purpose=purpose, publish=publish):
                until = time.monotonic() + window
                first = True
                while waiting and (first or time.monotonic() < until):
                    results.append(with_more(con, partial(work, waiting[0])))
                    waiting.popleft()
                    first, retries = False, Retries()
            published = True
        except Exception as error:
            retries.wait_after(error, reached=bool(results))
            published = False
    return results


class Retries:
    """The retries of a transaction, until the deadline for locks."""

    def __init__(self) -> None:
        self._until = time.monotonic() + lock.declared_deadline()
        self._pause = 0.01

    def wait_after(self, error: Exception, *, reached: bool = True) -> None:
        """Wait a random moment, so that processes that conflicted do not retry in step.

        A warehouse not `reached` yet may be mistyped, and opening it has waited long enough; the files of one that is
        open may be away for a moment.

        Raises:
            Exception: the error, if a retry would end in it again or the time is over.
        """
        transient = isinstance(error, OvertakenError) or is_transient(error)
        transient &= reached or not isinstance(error, WarehouseError) or isinstance(error, StorageError)
        if not transient or time.monotonic() >= self._until:
            raise error
        time.sleep(random.uniform(0, self._pause))
        self._pause = min(2 * self._pause, 1.0)
