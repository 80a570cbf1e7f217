"""`pip-dagster backfill`: a historic range made in chunks, resumed where it was cut off."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pip_dagster.cli.backfill_progress import Progress
from pip_dagster.cli.output import show_json, show_table
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.model_names import parse_ref
from pip_dagster.declaration.project import Project
from pip_dagster.registry.choose import registry_of
from pip_dagster.registry.store import whoami

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.flow.backfill import RunChunk, Work

INCOMPLETE, CANCELLED = 3, 130
NEWEST = "newest"


@click.command()
@click.argument("pipeline")
@click.option("--from", "first", metavar="KEY", help="The first partition.")
@click.option("--to", "last", metavar="KEY", help="The last partition; the newest that can be made when absent.")
@click.option("--only", type=click.Choice(["stale", "missing"]), help="Of the range, only these partitions.")
@click.option("--version", metavar="VERSION", help="Score with 1, v1 or an alias, and make that live for the range.")
@click.option("--as-known", is_flag=True, help="Features from the rows that could be known at each partition's close.")
@click.option("--why", default="", help="Kept in the ledger and the audit.")
@click.option("--chunk", type=click.IntRange(min=1), help="Partitions a run; partitions.max_per_run when absent.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value=NEWEST,
    metavar="[ID]",
    help="Go on with a backfill that was cut off; the newest one when no id is given.",
)
@click.option("--no-dagster", is_flag=True, help="Record no runs in Dagster, though DAGSTER_HOME is set.")
@click.option("--dry-run", is_flag=True, help="List what would be made; make nothing.")
@click.option("--json", "as_json", is_flag=True, help="The result for machines; progress goes to stderr.")
@click.pass_obj
def backfill(
    project: Project,
    pipeline: str,
    first: str | None,
    last: str | None,
    only: Literal["stale", "missing"] | None,
    version: str | None,
    as_known: bool,
    why: str,
    chunk: int | None,
    resume: str | None,
    no_dagster: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make the partitions of PIPELINE from --from to --to, each committed by itself.

    With DAGSTER_HOME set each chunk is a run that the UI shows. Exit code 0: every partition is made. 3: some failed or
    were blocked. 130: cancelled; what is committed stays.
    """
    from pip_dagster.flow import backfill as backfills

    declared = find_pipeline(project, pipeline)
    if resume:
        if first or last or only or version or as_known or why:
            raise click.UsageError("--resume goes on with what was asked for then; give it alone.")
        work = backfills.resume(declared, None if resume == NEWEST else resume, chunk=chunk)
    else:
        if not first:
            raise click.UsageError("Say where to begin with --from KEY, or --resume one that was cut off.")
        work = backfills.begin(
            declared,
            first=first,
            last=last,
            only=only,
            version=_version(declared, version),
            as_known=as_known,
            why=why,
            by=whoami(),
            chunk=chunk,
            dry_run=dry_run,
        )
    _tell(declared, work, dry_run)
    if dry_run:
        _show_plan(work, as_json)
        return
    outcome = _run(declared, work, no_dagster)
    if as_json:
        show_json(outcome)
    sys.exit(0 if outcome["complete"] else CANCELLED if outcome["cancelled"] else INCOMPLETE)


def _version(pipeline: Pipeline, ref: str | None) -> int | None:
    wanted = parse_ref(ref) if ref else None
    if wanted is None or isinstance(wanted, int):
        return wanted
    return registry_of(pipeline.project, pipeline.spec.scoring).get(pipeline.spec.scoring.model_name, wanted).version


def _tell(pipeline: Pipeline, work: Work, dry_run: bool) -> None:
    """What is begun, and what the user may not expect of it."""
    asked, spec = work.backfill, pipeline.spec
    say = _say
    if work.unfinished and not dry_run:
        say(f"{work.unfinished[0]} asked for the same and was cut off; --resume {work.unfinished[0]} goes on with it.")
    at_present = registry_of(pipeline.project, spec.scoring).alias(spec.scoring.model_name, spec.scoring.alias)
    if work.resumed and not asked.pinned and at_present != asked.model_version:
        say(
            f"{asked.backfill_id} began with v{asked.model_version} and goes on with it; {spec.scoring.alias} names "
            f"v{at_present} now. For that one begin a new backfill."
        )
    if not work.chunks:
        say(f"{spec.name}: nothing to make" + (": it is done." if work.resumed else ": none of the range is stale."))
        return
    done = f", {work.done:,} are done" if work.resumed else ""
    chunks = f"{len(work.chunks):,} chunk{'s' if len(work.chunks) != 1 else ''}"
    makes = "would make" if dry_run else f"{asked.backfill_id} makes"
    partitions = f"{work.remaining:,} partition{'s' if work.remaining != 1 else ''}"
    pinned = f", pinned to v{asked.model_version}" if asked.pinned else f", by v{asked.model_version}"
    known = ", as known" if asked.as_known else ""
    say(f"{spec.name}: {makes} {partitions} in {chunks}{pinned}{known}{done}.")


def _show_plan(work: Work, as_json: bool) -> None:
    if as_json:
        chunks = [[partition.key for partition in chunk] for chunk in work.chunks]
        show_json({"model_version": work.backfill.model_version, "partitions": work.remaining, "chunks": chunks})
    elif work.chunks:
        rows = [[chunk[0].key, chunk[-1].key, len(chunk)] for chunk in work.chunks]
        show_table("Would be made", ["from", "to", "partitions"], rows)


def _run(pipeline: Pipeline, work: Work, no_dagster: bool) -> dict[str, Any]:
    from pip_dagster.errors import PipelineError, RegistryError
    from pip_dagster.flow.backfill import check_not_withdrawn
    from pip_dagster.warehouse.lock import exclusive

    asked = work.backfill
    began, error = time.monotonic(), None
    cancelled = False
    mine = _lock_of(pipeline, asked.backfill_id)
    busy = exclusive(mine, purpose=asked.backfill_id, deadline=0)
    with _sigterm_is_ctrl_c(), busy, Progress(work.remaining) as progress:
        try:
            with _runner(pipeline, work, progress, no_dagster or not work.chunks) as run:
                for chunk in work.chunks:
                    progress.begin(chunk)
                    check_not_withdrawn(pipeline, asked)
                    for result in run(asked, chunk):
                        progress.note(result)
        except KeyboardInterrupt:
            cancelled = True
        except (PipelineError, RegistryError) as found:
            error = str(found)
    mine.unlink(missing_ok=True) if progress.done == work.remaining and not error else None
    made, failed = progress.made, progress.failed
    outcome = {
        "backfill_id": asked.backfill_id,
        "pipeline": asked.pipeline,
        "model_version": asked.model_version,
        "made": made,
        "reused": progress.reused,
        "done_before": work.done,
        "failed": failed,
        "cancelled": cancelled,
        "error": error,
        "complete": not cancelled and not error and made == work.remaining,
        "seconds": round(time.monotonic() - began, 2),
    }
    if work.chunks:
        _sum_up(asked.pipeline, asked.backfill_id, work, outcome)
    if error:
        sys.exit(1)
    return outcome


def _sum_up(pipeline: str, backfill_id: str, work: Work, outcome: dict[str, Any]) -> None:
    made, failed = outcome["made"], outcome["failed"]
    state = "cancelled" if outcome["cancelled"] else "stopped" if outcome["error"] else "ended"
    _say(
        f"{pipeline}: {state} after {outcome['seconds']:.1f} s; {made:,} of {work.remaining:,} partitions made, "
        f"{outcome['reused']:,} of them were there already; {len(failed):,} failed."
    )
    for key, reason in list(failed.items())[:20]:
        _say(f"  {key}: {reason}")
    if outcome["error"]:
        _say(f"Error: {outcome['error']}")
    if not outcome["complete"]:
        _say(f"What is committed stays. To go on: pip-dagster backfill {pipeline} --resume {backfill_id}")


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _lock_of(pipeline: Pipeline, backfill_id: str) -> Path:
    """Held by the process that works on a backfill; beside the registry where the warehouse is no file."""
    path = pipeline.project.warehouse
    beside = path if isinstance(path, Path) else pipeline.project.registry
    return beside.with_name(f"{beside.name}.{backfill_id}.lock")


@contextmanager
def _runner(pipeline: Pipeline, work: Work, progress: Progress, no_dagster: bool) -> Iterator[RunChunk]:
    """In Dagster's instance where there is one, else in this process alone."""
    if no_dagster or not os.environ.get("DAGSTER_HOME"):
        from pip_dagster.flow.backfill import run_in_process

        if not no_dagster:
            _say("DAGSTER_HOME is not set: Dagster's UI will not show these partitions as materialized.")
        yield run_in_process(pipeline, progress.say)
        return
    import warnings

    import dagster as dg

    # What this project uses of Dagster's previews is no news to whoever makes partitions.
    warnings.simplefilter("ignore", dg.BetaWarning)
    warnings.simplefilter("ignore", dg.PreviewWarning)
    from pip_dagster.errors import WarehouseLockedError
    from pip_dagster.orchestration.backfill import end_runs, run_in_dagster
    from pip_dagster.warehouse.lock import exclusive

    with dg.DagsterInstance.get() as instance:
        # Sensors leave alone what a run is about: also one that was killed, until it is ended.
        killed = end_runs(pipeline, instance, work.backfill.backfill_id) if work.resumed else []
        for other in work.unfinished:
            lock = _lock_of(pipeline, other)
            with suppress(WarehouseLockedError), exclusive(lock, purpose=other, deadline=0):
                killed += end_runs(pipeline, instance, other)
        for run_id in killed:
            _say(f"Run {run_id} was killed; Dagster is told of what it had committed.")
        yield run_in_dagster(pipeline, instance, progress.note)


_say: Callable[[str], None] = lambda text: click.echo(text, err=True)  # noqa: E731
