"""The outbox: what is live and not delivered yet goes to each target, at least once, in the order of changes.

Nothing here runs inside a scoring's transaction, and no target is called while the warehouse is locked: what is pending
is read from the ledger, the rows from the published files, and what was delivered is recorded in a short transaction.
A kill between delivery and record delivers again, and the target skips what it shows already.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.alerts.notify import beside
from pip_dagster.delivery.live_rows import Unreadable, UnreadableError, live_rows
from pip_dagster.delivery.recorder import Recorder
from pip_dagster.delivery.redact import redacted
from pip_dagster.delivery.staging import staged
from pip_dagster.delivery.target import DeliveryError, Receipt, Sweeping
from pip_dagster.delivery.targets import Session
from pip_dagster.errors import NoWarehouseError, PipelineError, WarehouseLockedError
from pip_dagster.flow.engine import available_threads
from pip_dagster.ledger.deliveries import Pending, live_of, pending_deliveries
from pip_dagster.ledger.record import RunInfo
from pip_dagster.plural import plural
from pip_dagster.quoted import said
from pip_dagster.warehouse import advisory, lock, memory
from pip_dagster.warehouse.access import complete_publications, reading, writing
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.deliver import DeclaredTarget
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.delivery.live_rows import Live

LOG = logging.getLogger("pip_dagster")

# Seconds before the first retry; each further one waits twice as long, up to the second figure.
BACKOFF_SECONDS, LONGEST_PAUSE = 1.0, 60.0
# A target that refuses so many partitions in a row gets no more of them in this run.
_REFUSED_IN_A_ROW = 10
# Seconds that a deliverer waits at its end for the warehouse.
_PUBLISHED_WITHIN = 10.0
_AT_ONCE = 500  # partitions that one reading of the published files is about


@dataclass
class Delivered:
    """What became of a pipeline's pending changes at one target.

    Attributes:
        receipts: Partition → what the target has of it.
        failed: Partition → why it was not delivered.
        left: How many more are pending: the target rests until the next run, or they are not published yet.
        error: Why no partition could be delivered.
    """

    target: str
    receipts: dict[str, Receipt] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0
    error: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the target has everything."""
        return not (self.failed or self.left or self.error)


@dataclass(frozen=True)
class DeliveryRequest:
    """Who delivers what: all that is pending, or the partitions that a person named, whatever the targets show.

    `sweeps`: former rows are removed from the targets at once, not once nobody reads them any more.
    """

    info: RunInfo
    targets: tuple[str, ...]
    partitions: tuple[str, ...] | None = None
    sweeps: bool = False


def deliver(
    pipeline: Pipeline, request: DeliveryRequest, *, progress: Callable[[str], object] = LOG.info
) -> list[Delivered]:
    """Deliver to each target, side by side: one that is away delays only itself. What became of each.

    Raises:
        WarehouseError: the warehouse cannot be read.
    """
    with suppress(NoWarehouseError):
        complete_publications(pipeline.project)
    stop, lines = threading.Event(), queue.SimpleQueue[str]()
    names = request.targets
    with ThreadPoolExecutor(max(1, len(names)), thread_name_prefix="deliver") as pool:
        work = [_Outbox(pipeline, name, request, stop, lines.put, share=len(names)) for name in names]
        running: list[Future[Delivered]] = [pool.submit(each.run) for each in work]
        try:
            while wait(running, timeout=0.1).not_done:
                _drain(lines, progress)
        except BaseException:
            stop.set()  # each ends after the partition that it delivers
            raise
    _drain(lines, progress)
    done = [each.result() for each in running]
    if any(each.receipts or each.failed for each in done):
        try:  # what is recorded of deliveries
            complete_publications(pipeline.project, within=_PUBLISHED_WITHIN)
        except PipelineError as error:  # whoever has the warehouse publishes it; what is delivered is delivered
            progress(f"{pipeline.spec.name}: deliveries are published later: {error}")
    return done


def _drain(lines: queue.SimpleQueue[str], progress: Callable[[str], object]) -> None:
    with suppress(queue.Empty):
        while True:
            progress(lines.get_nowait())


@dataclass
class _Outbox:
    """The deliveries to one target, in a thread of its own."""

    pipeline: Pipeline
    target: str
    request: DeliveryRequest
    stop: threading.Event
    say: Callable[[str], object]
    share: int  # of threads and memory: one of so many targets

    def __post_init__(self) -> None:
        self.done = Delivered(self.target)
        self._recorder = Recorder(self.pipeline, self.target, self.request.info)
        self._in_a_row = 0
        self._rests = False
        self._damage: set[str] = set()  # what was logged of damaged files

    @property
    def name(self) -> str:
        return self.pipeline.spec.name

    @property
    def declared(self) -> DeclaredTarget:
        return self.pipeline.spec.deliver[self.target]

    def run(self) -> Delivered:
        """Deliver until nothing is pending that can be delivered."""
        try:
            with _alone(self.pipeline, self.target) as still_alone, Session(self.pipeline, self.target) as session:
                self._all(session, still_alone)
                if self.request.sweeps and isinstance(target := session.target(), Sweeping):
                    still_alone()
                    target.sweep()
        except NoWarehouseError:
            pass
        except Exception as error:  # one of the catalog's database, too, must not end the other targets
            if isinstance(error, WarehouseLockedError) and self._is_done_by_another():
                return self.done
            self.done.error = redacted(said(error), self.declared, self.pipeline.project.root)
            self.say(f"{self.name}: target {self.target}: {self.done.error}")
        return self.done

    def _is_done_by_another(self) -> bool:
        """Whether nothing is left to do for this process, which another one kept from delivering."""
        with suppress(PipelineError):
            self.done.left = len(self._pending())
            return self.request.partitions is None and not self.done.left
        return False

    def _all(self, session: Session, still_alone: Callable[[], None]) -> None:
        tried: dict[str, str] = {}  # partition → change
        while not self._ends():
            pending = [each for each in self._pending() if tried.get(each.partition_key) != each.change_id]
            if pending and not tried:
                self.say(f"{self.name}: {plural(len(pending), 'partition')} to deliver to {self.target}")
            before = len(tried)
            try:
                for each, live, con in self._published(pending):
                    tried[each.partition_key] = each.change_id
                    if isinstance(live, Unreadable):
                        self._unreadable(each, live.why)
                        continue
                    still_alone()
                    self._deliver(session, con, each, live)
            finally:
                self._recorder.write()
            self.done.left = sum(tried.get(each.partition_key) != each.change_id for each in pending)
            if self.request.partitions is not None:
                absent = {*self.request.partitions} - {each.partition_key for each in pending}
                self.done.failed |= dict.fromkeys(sorted(absent), "no scoring of it is live")
                return
            if len(tried) == before:
                return

    def _ends(self) -> bool:
        return self._rests or self.stop.is_set()

    def _pending(self) -> list[Pending]:
        wanted = self.request.partitions
        with workspace(threads=1) as con, reading(con, self.pipeline.project, purpose=f"{self.name}: what is pending"):
            if wanted is not None:
                return live_of(con, self.name, self.target, self.declared.digest, wanted)
            return pending_deliveries(con, self.name, {self.target: self.declared.digest})

    def _published(self, pending: Sequence[Pending]) -> Iterator[tuple[Pending, Live | Unreadable, DuckDBPyConnection]]:
        """Those of which the very change is published, with their rows, or cannot be read, until the target rests."""
        threads = max(1, available_threads() // self.share)
        limit = f"{memory.all_memory() / 1e6 / self.share:.0f}MB"
        for start in range(0, len(pending), _AT_ONCE):
            of = {each.partition_key: each for each in pending[start : start + _AT_ONCE]}
            with workspace(threads=threads, memory_limit=limit) as con:
                con.execute("SET preserve_insertion_order = true")  # rows leave in the order of the published ones
                for live in live_rows(con, self.pipeline.project, self.name, [*of]):
                    if self._ends():
                        return
                    if isinstance(live, Unreadable) or live.change_id == of[live.partition_key].change_id:
                        yield of[live.partition_key], live, con

    def _deliver(self, session: Session, con: DuckDBPyConnection, pending: Pending, live: Live) -> None:
        key, began, attempts = pending.partition_key, time.monotonic(), 0
        error: str | None = None
        receipt: Receipt | None = None
        try:
            force = self.request.partitions is not None
            with staged(con, self.name, self.declared, live, pending, force=force) as ready:
                for attempts in range(1, self.declared.retries + 2):
                    try:
                        receipt = session.target().deliver(ready.change, ready.rows)
                        break
                    except DeliveryError as found:
                        session.drop()
                        if not found.again or not self._waits(attempts, found, key):
                            self._rests = found.again
                            raise
        except UnreadableError as found:
            self._unreadable(pending, str(found))
            return
        except Exception as found:  # a library's own too, which a target did not foresee: never a traceback
            error = redacted(said(found), self.declared, self.pipeline.project.root)
        self._note(pending, receipt, error, attempts, time.monotonic() - began)

    def _waits(self, attempts: int, error: DeliveryError, key: str) -> bool:
        """Whether to try again, after a pause."""
        if attempts > self.declared.retries:
            return False
        pause = min(BACKOFF_SECONDS * 2 ** (attempts - 1), LONGEST_PAUSE)
        text = redacted(str(error), self.declared, self.pipeline.project.root)
        self.say(
            f"{self.name}, {key}: target {self.target}: attempt {attempts} failed, the next in {pause:g} s: {text}"
        )
        return not self.stop.wait(pause)

    def _unreadable(self, pending: Pending, why: str) -> None:
        """Note a partition of a damaged file, which is no fault of the target; each run meets all of them again."""
        error = f"Pipeline {self.name}, partition {pending.partition_key}: {why}"
        self.done.failed[pending.partition_key] = error
        if why not in self._damage:
            self._damage.add(why)
            self.say(f"{self.name}, {pending.partition_key}: not delivered to {self.target}: {why}")
        if error != pending.error:
            self._recorder.note(pending, None, error, attempts=0, seconds=0.0)

    def _note(
        self, pending: Pending, receipt: Receipt | None, error: str | None, attempts: int, seconds: float
    ) -> None:
        key = pending.partition_key
        if receipt:
            self.done.receipts[key] = receipt
            self.done.failed.pop(key, None)
            self._in_a_row = 0
        else:
            self.done.failed[key] = error or "it was not delivered"
            self.say(f"{self.name}, {key}: not delivered to {self.target}: {error}")
            self._in_a_row += 1
            self._rests |= self._in_a_row >= _REFUSED_IN_A_ROW
        self._recorder.note(pending, receipt, error, attempts=attempts, seconds=seconds)


@contextmanager
def _alone(pipeline: Pipeline, target: str) -> Iterator[Callable[[], None]]:
    """Be the only process that delivers to this target; yields a check of whether it still is.

    Two at once would do no harm, since targets refuse older changes, but would do the work twice.

    Raises:
        WarehouseLockedError: another process delivers, and went on longer than the deadline for locks.
    """
    project, name = pipeline.project, pipeline.spec.name
    purpose = f"{name}: delivering to {target}"
    if isinstance(project.warehouse, Path):
        path = beside(pipeline, f"{name}.deliver.{target}.lock")
        with lock.exclusive(path, purpose=purpose, deadline=lock.declared_deadline()):
            yield lambda: None
        return
    with (
        workspace(threads=1) as con,
        writing(con, project, purpose=purpose, publish=False),
        advisory.holding(con, [advisory.key_of("deliver", name, target)]) as holder,
    ):
        yield lambda: advisory.check(holder)


def pending_now(pipeline: Pipeline, *, within: float | None = None) -> Mapping[str, list[Pending]]:
    """Target → what is pending for it, for all declared targets.

    Raises:
        WarehouseError: the warehouse cannot be read, or not so soon.
    """
    found: dict[str, list[Pending]] = {name: [] for name in pipeline.spec.deliver}
    seconds = lock.declared_deadline() if within is None else within
    name = pipeline.spec.name
    with (
        suppress(NoWarehouseError),
        lock.waiting_at_most(seconds),
        workspace(threads=1) as con,
        reading(con, pipeline.project, purpose=f"{name}: what is pending"),
    ):
        digests = {target: declared.digest for target, declared in pipeline.spec.deliver.items()}
        for each in pending_deliveries(con, name, digests):
            found[each.target].append(each)
    return found
