"""What `pip-dagster backfill` reports: what begins, what may surprise, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pip_dagster.cli.cells import duration
from pip_dagster.cli.output import progress as report
from pip_dagster.cli.output import show_json, show_table
from pip_dagster.plural import plural
from pip_dagster.registry.choose import registry_of

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.flow.backfill import Work
    from pip_dagster.ledger.backfills import Backfill

_SHOWN = 5  # partitions on hold


def announce(pipeline: Pipeline, work: Work, dry_run: bool) -> None:
    """Report what begins, and what may surprise the user."""
    requested, spec = work.backfill, pipeline.spec
    if work.published:
        partitions = plural(work.published, "partition")
        report(f"{partitions} that a killed process had stored and not published: published now.")
    if work.unfinished and not dry_run:
        other = work.unfinished[0]
        resumes = f"--resume {other.backfill_id} resumes it, {_model(other)}"
        report(f"{other.backfill_id} of the same partitions is unfinished; {resumes}.")
    at_present = registry_of(pipeline.project, spec.scoring).alias(spec.scoring.model_name, spec.scoring.alias)
    if work.resumed and not requested.pinned and at_present != requested.model_version:
        report(
            f"{requested.backfill_id} began with v{requested.model_version} and keeps it; {spec.scoring.alias} names "
            f"v{at_present} now. To use that version, begin a new backfill."
        )
    if work.on_hold:
        listed = "; ".join(f"{key}: {why}" for key, why in list(work.on_hold.items())[:_SHOWN])
        more = f"; and {len(work.on_hold) - _SHOWN:,} more" if len(work.on_hold) > _SHOWN else ""
        report(
            f"{spec.name}: {plural(len(work.on_hold), 'partition')} of the range on hold, which --only leaves out; "
            f"without it they are built. {listed}{more}"
        )
    if work.expired:
        report(
            f"{spec.name}: {plural(len(work.expired), 'partition')} of the range, {work.expired[0]} to "
            f"{work.expired[-1]}, left out: past `privacy.retention.content`."
        )
    if not work.chunks:
        why = "the backfill is finished" if work.resumed else "no partition of the range is stale"
        report(f"{spec.name}: nothing to build: {why}.")
        return
    done = f", {work.done:,} already done" if work.resumed else ""
    builds = "would build" if dry_run else f"{requested.backfill_id} builds"
    partitions, chunks = plural(work.remaining, "partition"), plural(len(work.chunks), "chunk")
    report(f"{spec.name}: {builds} {partitions} in {chunks}, {_model(requested)}{done}.")


def _model(requested: Backfill) -> str:
    known = ", as known" if requested.as_known else ""
    return f"{'pinned to' if requested.pinned else 'by'} v{requested.model_version}{known}"


def show_chunks(work: Work, as_json: bool) -> None:
    """What a dry run would build."""
    if as_json:
        chunks = [[partition.key for partition in chunk] for chunk in work.chunks]
        found = {"model_version": work.backfill.model_version, "partitions": work.remaining, "chunks": chunks}
        show_json(found | {"on_hold": work.on_hold, "expired": len(work.expired)})
    elif work.chunks:
        rows = [[chunk[0].key, chunk[-1].key, len(chunk)] for chunk in work.chunks]
        show_table("Would be built", ["from", "to", "partitions"], rows)


def summarize(work: Work, outcome: dict[str, Any]) -> None:
    """How it ended, which partitions failed, and how to resume."""
    failed = outcome["failed"]
    state = "cancelled" if outcome["cancelled"] else "stopped by an error" if outcome["error"] else "finished"
    report(
        f"{outcome['pipeline']}: {state} after {duration(outcome['seconds'])}; {outcome['built']:,} of "
        f"{plural(work.remaining, 'partition')} built, {outcome['reused']:,} of them unchanged; {len(failed):,} failed."
    )
    for key, reason in list(failed.items())[:20]:
        report(f"  {key}: {reason}")
    if len(failed) > 20:
        report(f"  and {len(failed) - 20:,} more")
    if outcome["error"]:
        report(f"Error: {outcome['error']}")
    if not outcome["complete"]:
        resume = f"pip-dagster backfill {outcome['pipeline']} --resume {outcome['backfill_id']}"
        report(f"Committed partitions stay. To resume: {resume}")
