"""The only way to a project's warehouse, for reading and for writing.

Both refuse a warehouse that is not the one written to last (`stamp`). Whoever writes also completes the publications
that a killed process left pending.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.errors import NoWarehouseError
from pip_dagster.sql.names import literal
from pip_dagster.warehouse import erased, faults, lock, stamp
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.pending import Pending, pending_publications
from pip_dagster.warehouse.published import publish_pending

if TYPE_CHECKING:
    from datetime import datetime

    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

_DATED = (
    *("scorings", "extractions", "live_changes", "backfills", "source_buckets", "audit", "published_digests"),
    "deliveries",
)


@contextmanager
def reading(con: DuckDBPyConnection, project: Project, *, purpose: str, checked: bool = True) -> Iterator[None]:
    """The project's warehouse as the default catalog, for one read. `checked` is False for who checks it otherwise.

    Raises:
        NoWarehouseError: there is none yet.
        OtherWarehouseError: it was lost, replaced, or is older than what was published from it.
        WarehouseError: as `open_warehouse`.
    """
    with _opened(con, project, purpose, read_only=True, checked=checked):
        yield


@contextmanager
def writing(con: DuckDBPyConnection, project: Project, *, purpose: str, publish: bool = True) -> Iterator[None]:
    """The same for a few transactions; created where the project has none yet.

    At the end everything pending is published, whoever committed it; without `publish`, another call of the same
    command does that.

    Raises:
        RestoredWarehouseError: it is from a backup of before an erasure.
        WarehouseError: as `reading`.
    """
    with _opened(con, project, purpose, read_only=False):
        try:
            yield
        finally:
            if publish:
                publish_pending(con, project)


@contextmanager
def _opened(
    con: DuckDBPyConnection, project: Project, purpose: str, *, read_only: bool, checked: bool = True
) -> Iterator[None]:
    stamps = stamp.stamps_of(project)
    new = partial(stamp.check_new, con, project, stamps)
    with open_warehouse(con, project.warehouse, purpose=purpose, read_only=read_only, new=new):
        if checked:
            stamp.check(con, project, stamps)
        if not read_only:
            erased.check(con, project)
        see_newest(con)
        yield


def check_may_write(project: Project) -> None:
    """Check, before anything else is changed, that this user may write the warehouse; of a lake, Postgres decides.

    Raises:
        StorageError: names what may not be written, and what to do.
    """
    if isinstance(project.warehouse, Path):
        faults.check_writable(project.warehouse, project.warehouse.parent)


def see_newest(con: DuckDBPyConnection) -> None:
    """Have the clock of records go on behind the ledger's newest."""
    clock.seen(newest_of_future(con))


def newest_of_future(con: DuckDBPyConnection) -> datetime | None:
    """The newest record that is later than this machine's clock. In time order, this reads next to nothing."""
    ahead, last = (f"{literal(each.isoformat())}::TIMESTAMPTZ" for each in (clock.wall(), clock.LAST))
    selects = (
        f"SELECT max(made_at) AS newest FROM ledger.{name} WHERE made_at > {ahead} AND made_at < {last}"
        for name in _DATED
    )
    found = con.execute(f"SELECT epoch_us(max(newest)) FROM ({' UNION ALL '.join(selects)})").fetchone()
    return clock.instant(found[0]) if found and found[0] is not None else None


def pending_now(project: Project, *, within: float) -> list[Pending]:
    """What the ledger holds and the published files do not show, after waiting at most so many seconds for the lock.

    Raises:
        OtherWarehouseError: as `reading`.
        WarehouseError: the warehouse cannot be read, or not so soon.
    """
    if not project.publishes:
        return []
    try:
        with (
            lock.waiting_at_most(within),
            workspace(threads=1) as con,
            reading(con, project, purpose="reading what is pending"),
        ):
            return pending_publications(con, project)
    except NoWarehouseError:
        return []


def check_not_restored(project: Project, *, within: float) -> None:
    """Refuse a warehouse from a backup of before an erasure; it is opened only where there was one.

    Raises:
        RestoredWarehouseError: it is.
        WarehouseError: as `pending_now`.
    """
    if not erased.folder(project).exists():
        return
    with (
        suppress(NoWarehouseError),
        lock.waiting_at_most(within),
        workspace(threads=1) as con,
        reading(con, project, purpose="reading which erasures are known"),
    ):
        erased.check(con, project)


def complete_publications(project: Project, *, within: float | None = None) -> int:
    """Publish what a killed process left pending; the number of partitions. Nothing is written where nothing is.

    Raises:
        RestoredWarehouseError: the warehouse is from a backup of before an erasure.
        WarehouseError: as `pending_now`.
    """
    seconds = lock.declared_deadline() if within is None else within
    check_not_restored(project, within=seconds)
    if not pending_now(project, within=seconds):
        return 0
    with (
        lock.waiting_at_most(seconds),
        workspace(threads=2) as con,
        writing(con, project, purpose="publishing what is pending", publish=False),
    ):
        return publish_pending(con, project)
