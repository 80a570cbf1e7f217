"""What `run` and `backfill` share: chunks of partitions, built in Dagster's instance or in this process."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pip_dagster.cli.backfill_progress import Progress
from pip_dagster.cli.dagster_home import entered
from pip_dagster.cli.output import progress as report
from pip_dagster.errors import PipelineError, WarehouseLockedError
from pip_dagster.warehouse.lock import exclusive

if TYPE_CHECKING:
    from pip_dagster.declaration.partition import Partition
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.flow.backfill import RunChunk, Work
    from pip_dagster.flow.result import PartitionResult
    from pip_dagster.ledger.backfills import Backfill

FAILED, INCOMPLETE, CANCELLED = 1, 3, 130


def build(
    pipeline: Pipeline, work: Work, progress: Progress, *, home: str | None, allow_fewer_rows: bool
) -> dict[str, Any]:
    """Run the chunks, in Dagster where `home` is its folder, else in this process alone.

    Returns the outcome of all, also when an error or a person ends it. `made` is `built`'s former name.
    """
    from pip_dagster.flow.backfill import check_not_withdrawn

    requested = work.backfill
    began, error, cancelled = time.monotonic(), None, False
    lock = _lock_of(pipeline, requested.backfill_id)
    busy = exclusive(lock, purpose=requested.backfill_id, deadline=0) if work.recorded else nullcontext()
    with _sigterm_is_ctrl_c(), busy, progress:
        try:
            with _runner(pipeline, work, progress, home if work.chunks else None, allow_fewer_rows) as run:
                for chunk in work.chunks:
                    progress.begin(chunk)
                    check_not_withdrawn(pipeline, requested)
                    for result in run(requested, chunk):
                        progress.note(result)
        except KeyboardInterrupt:
            cancelled = True
        except PipelineError as found:
            error = str(found)
    if work.recorded and progress.done == work.remaining and not error:
        lock.unlink(missing_ok=True)
    return {
        "backfill_id": requested.backfill_id,
        "pipeline": requested.pipeline,
        "model_version": requested.model_version,
        "built": progress.built,
        "made": progress.built,
        "reused": progress.reused,
        "done_before": work.done,
        "published_before": work.published,
        "failed": progress.failed,
        "on_hold": work.on_hold,
        "cancelled": cancelled,
        "error": error,
        "complete": not cancelled and not error and progress.built == work.remaining,
        "seconds": round(time.monotonic() - began, 2),
    }


def exit_code(outcome: dict[str, Any]) -> int:
    """0: everything is built. 130: cancelled. 1: an error ended it. 3: some partitions failed or were blocked."""
    if outcome["complete"]:
        return 0
    return CANCELLED if outcome["cancelled"] else FAILED if outcome["error"] else INCOMPLETE


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _lock_of(pipeline: Pipeline, backfill_id: str) -> Path:
    """The lock that a backfill's process holds; beside the registry if the warehouse is not a file."""
    path = pipeline.project.warehouse
    beside = path if isinstance(path, Path) else pipeline.project.registry
    return beside.with_name(f"{beside.name}.{backfill_id}.lock")


def _watched(pipeline: Pipeline, run: RunChunk) -> RunChunk:
    """Runs each chunk, then judges what it scored, as a run in Dagster does."""
    from pip_dagster.monitoring.watch import watch_scored

    def run_and_watch(backfill: Backfill, chunk: Sequence[Partition]) -> Iterator[PartitionResult]:
        scored = []
        for result in run(backfill, chunk):
            scored += [result.partition.key] if result.scoring else []
            yield result
        if scored:
            watch_scored(pipeline, backfill.model_version, scored)

    return run_and_watch


@contextmanager
def _runner(
    pipeline: Pipeline, work: Work, progress: Progress, home: str | None, allow_fewer_rows: bool
) -> Iterator[RunChunk]:
    if home is None:
        from pip_dagster.flow.backfill import run_in_process
        from pip_dagster.monitoring.judged import judging

        stored = judging(pipeline, [partition.key for chunk in work.chunks for partition in chunk])
        run = run_in_process(pipeline, progress.show, stored=stored, allow_fewer_rows=allow_fewer_rows)
        yield _watched(pipeline, run)
        return
    import warnings

    import dagster as dg

    # That this package uses preview features of Dagster does not concern the user of this command.
    warnings.simplefilter("ignore", dg.BetaWarning)
    warnings.simplefilter("ignore", dg.PreviewWarning)
    from pip_dagster.orchestration.backfill import end_killed, end_runs, run_in_dagster

    with entered(home), dg.DagsterInstance.get() as instance:
        # Sensors skip the partitions of an unfinished run, even if it was killed, until its end is reported.
        killed = end_runs(pipeline, instance, work.backfill.backfill_id) if work.resumed else []
        for other in work.unfinished:
            lock = _lock_of(pipeline, other.backfill_id)
            with suppress(WarehouseLockedError), exclusive(lock, purpose=other.backfill_id, deadline=0):
                killed += end_runs(pipeline, instance, other.backfill_id)
        killed += [] if work.recorded else end_killed(pipeline, instance)
        for run_id in killed:
            report(f"Run {run_id} was killed; the partitions that it committed are reported to Dagster.")
        yield run_in_dagster(pipeline, instance, progress.note, allow_fewer_rows=allow_fewer_rows)
