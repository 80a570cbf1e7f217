"""`pip-dagster backfill`: build a range of past partitions in chunks; an interrupted backfill can be resumed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pip_dagster.cli.backfill_progress import Progress
from pip_dagster.cli.backfill_report import announce, show_chunks, summarize
from pip_dagster.cli.options import check_dagster_home, json_option, version_number, why_option
from pip_dagster.cli.output import progress as report
from pip_dagster.cli.output import show_json
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.errors import PipelineError, WarehouseLockedError
from pip_dagster.registry.store import whoami
from pip_dagster.warehouse.lock import exclusive

if TYPE_CHECKING:
    from pip_dagster.declaration.partition import Partition
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.flow.backfill import RunChunk, Work
    from pip_dagster.flow.result import PartitionResult
    from pip_dagster.ledger.backfills import Backfill

FAILED, INCOMPLETE, CANCELLED = 1, 3, 130
NEWEST = "newest"


@click.command()
@click.argument("pipeline")
@click.option("--from", "first", metavar="KEY", help="The first partition.")
@click.option("--to", "last", metavar="KEY", help="The last partition; by default the newest that has closed.")
@click.option("--only", type=click.Choice(["stale", "missing"]), help="Only the stale or missing partitions.")
@click.option("--version", metavar="VERSION", help="Score with 1, v1 or an alias, and pin the range to it.")
@click.option("--as-known", is_flag=True, help="Build features from the rows available at each partition's close.")
@click.option("--allow-fewer-rows", is_flag=True, help="Accept partitions with far fewer rows than before, even none.")
@why_option
@click.option("--chunk", type=click.IntRange(min=1), help="Partitions per run; by default partitions.max_per_run.")
@click.option(
    "--resume", is_flag=False, flag_value=NEWEST, metavar="[ID]", help="Resume a backfill; by default the newest."
)
@click.option("--no-dagster", is_flag=True, help="Record no runs in Dagster, even if DAGSTER_HOME is set.")
@click.option("--dry-run", is_flag=True, help="List the chunks; build nothing.")
@json_option
@click.pass_obj
def backfill(
    project: Project,
    pipeline: str,
    first: str | None,
    last: str | None,
    only: Literal["stale", "missing"] | None,
    version: str | None,
    as_known: bool,
    allow_fewer_rows: bool,
    why: str,
    chunk: int | None,
    resume: str | None,
    no_dagster: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Build the partitions of PIPELINE from --from to --to; each is committed independently.

    With DAGSTER_HOME set, each chunk is a run that the UI shows.

    Exit code 0: every partition is built. 1: an error ended the backfill. 3: some partitions failed or were blocked.
    130: cancelled. Committed partitions stay in every case.
    """
    from pip_dagster.flow import backfill as backfills

    declared = find_pipeline(project, pipeline)
    if not (no_dagster or dry_run):
        check_dagster_home()
    if resume:
        if first or last or only or version or as_known or why:
            raise click.UsageError(
                "--resume uses the original backfill's options and cannot be combined with others than "
                "--chunk and --allow-fewer-rows."
            )
        work = backfills.resume(declared, None if resume == NEWEST else resume, chunk=chunk, dry_run=dry_run)
    else:
        if not first:
            raise click.UsageError("Name the first partition with --from KEY, or resume a backfill with --resume.")
        chosen = version_number(declared, version)
        request = backfills.BackfillRequest(first, last, whoami(), only, chosen, as_known, why)
        work = backfills.begin(declared, request, chunk=chunk, dry_run=dry_run)
    announce(declared, work, dry_run)
    if dry_run:
        show_chunks(work, as_json)
        return
    outcome = _run(declared, work, no_dagster, allow_fewer_rows)
    if as_json:
        show_json(outcome)
    code = CANCELLED if outcome["cancelled"] else FAILED if outcome["error"] else INCOMPLETE
    sys.exit(0 if outcome["complete"] else code)


def _run(pipeline: Pipeline, work: Work, no_dagster: bool, allow_fewer_rows: bool) -> dict[str, Any]:
    """Run the chunks; the outcome of all, also when an error or a person ends it. `made` is `built`'s former name."""
    from pip_dagster.flow.backfill import check_not_withdrawn

    requested = work.backfill
    began, error, cancelled = time.monotonic(), None, False
    lock = _lock_of(pipeline, requested.backfill_id)
    busy = exclusive(lock, purpose=requested.backfill_id, deadline=0)
    with _sigterm_is_ctrl_c(), busy, Progress(work.remaining) as progress:
        try:
            with _runner(pipeline, work, progress, no_dagster or not work.chunks, allow_fewer_rows) as run:
                for chunk in work.chunks:
                    progress.begin(chunk)
                    check_not_withdrawn(pipeline, requested)
                    for result in run(requested, chunk):
                        progress.note(result)
        except KeyboardInterrupt:
            cancelled = True
        except PipelineError as found:
            error = str(found)
    if progress.done == work.remaining and not error:
        lock.unlink(missing_ok=True)
    outcome = {
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
    if work.chunks:
        summarize(work, outcome)
    return outcome


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
    pipeline: Pipeline, work: Work, progress: Progress, no_dagster: bool, allow_fewer_rows: bool
) -> Iterator[RunChunk]:
    """Runs chunks in Dagster's instance if there is one, else in this process alone."""
    if no_dagster or not os.environ.get("DAGSTER_HOME"):
        from pip_dagster.flow.backfill import run_in_process

        if not no_dagster:
            report("DAGSTER_HOME is not set: Dagster's UI will not show these partitions as materialized.")
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
    from pip_dagster.orchestration.backfill import end_runs, run_in_dagster

    with dg.DagsterInstance.get() as instance:
        # Sensors skip the partitions of an unfinished run, even if it was killed, until its end is reported.
        killed = end_runs(pipeline, instance, work.backfill.backfill_id) if work.resumed else []
        for other in work.unfinished:
            lock = _lock_of(pipeline, other.backfill_id)
            with suppress(WarehouseLockedError), exclusive(lock, purpose=other.backfill_id, deadline=0):
                killed += end_runs(pipeline, instance, other.backfill_id)
        for run_id in killed:
            report(f"Run {run_id} was killed; the partitions that it committed are reported to Dagster.")
        yield run_in_dagster(pipeline, instance, progress.note, allow_fewer_rows=allow_fewer_rows)
