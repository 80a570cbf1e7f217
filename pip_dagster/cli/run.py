"""`pip-dagster run`: score what is stale, or the partitions that are named."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pip_dagster.cli.backfill_progress import Progress
from pip_dagster.cli.build import build, exit_code
from pip_dagster.cli.dagster_home import checked_home
from pip_dagster.cli.options import json_option, why_option
from pip_dagster.cli.output import echo, progress, show_json, show_table
from pip_dagster.cli.plan import as_dict, show_plan
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.cli.undelivered import read_undelivered
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.plural import plural
from pip_dagster.registry.store import whoami

if TYPE_CHECKING:
    from pip_dagster.declaration.partition import Partition
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.flow.backfill import Work
    from pip_dagster.flow.result import PartitionResult
    from pip_dagster.ledger.plan import Plan

_SHOWN = 10  # partitions


@click.command()
@click.argument("pipeline")
@partition_selection("to score", several=True)
@click.option("--allow-fewer-rows", is_flag=True, help="Accept partitions with far fewer rows than before, even none.")
@why_option
@click.option("--no-dagster", is_flag=True, help="Score without Dagster: no run is recorded there.")
@click.option("--dry-run", is_flag=True, help="Show what would be scored; score nothing.")
@json_option
@click.pass_obj
def run(
    project: Project,
    pipeline: str,
    allow_fewer_rows: bool,
    why: str,
    no_dagster: bool,
    dry_run: bool,
    as_json: bool,
    selected: Selection,
) -> None:
    """Score the stale partitions of PIPELINE, those that `plan` lists, or the partitions that are named.

    Named partitions are scored even if they are on hold; one that is up to date is not scored again. Dagster's UI shows
    the run. Without DAGSTER_HOME it is kept in the project's folder .dagster_home.

    \b
    pip-dagster run orders                         what is stale
    pip-dagster run orders 2024-03-01 2024-03-05   two partitions
    pip-dagster run orders 2024-03-01..2024-03-31  a range, as --from and --to

    Exit code 0: everything is scored or was up to date. 1: refused, or ended by an error. 3: some partitions failed or
    were blocked. 130: cancelled. Scored partitions stay in every case.
    """
    from pip_dagster.flow.backfill import unrecorded
    from pip_dagster.warehouse.access import complete_publications

    declared = find_pipeline(project, pipeline)
    home = None if no_dagster or dry_run else checked_home(project, create=True)
    plan, partitions = _wanted(declared, selected)
    if dry_run:
        _show_dry(pipeline, plan, partitions, as_json)
        return
    if plan and plan.pending:
        complete_publications(project)
        progress(
            f"{pipeline}: {plural(len(plan.pending), 'partition')} stored before and not published: published now."
        )
    work = unrecorded(declared, partitions, by=whoami(), why=why)
    outcome, results = score(declared, work, home, allow_fewer_rows)
    outcome |= {"on_hold": {each.partition.key: _reasons(each) for each in plan.on_hold} if plan else {}}
    if as_json:
        show_json(outcome | {"partitions": [_record(each) for each in results]})
    else:
        _report(declared, work, outcome, results, selected)
        if declared.spec.deliver:
            read_undelivered(project, pipeline).show(pending_only=True)
    sys.exit(exit_code(outcome))


def _wanted(pipeline: Pipeline, selected: Selection) -> tuple[Plan | None, list[Partition]]:
    """The named partitions; or what is stale, with the plan that says so."""
    from pip_dagster.declaration.grid import closed_partitions
    from pip_dagster.flow.plan import make_plan

    if not selected:
        plan = make_plan(pipeline)
        return plan, [each.partition for each in plan.stale]
    closed = closed_partitions(pipeline.spec.partitions, datetime.now(UTC))
    return None, selected.among(closed, pipeline.spec.name)


def score(
    pipeline: Pipeline, work: Work, home: str | None, allow_fewer_rows: bool
) -> tuple[dict[str, Any], list[PartitionResult]]:
    """Score the chunks of `work`, as runs in the Dagster whose folder is `home`, with progress; the outcome of all."""
    shown = Progress(work.remaining, keep=True)
    if work.chunks:
        runs = f" in {plural(len(work.chunks), 'run')}" if home else ""
        partitions = plural(work.remaining, "partition")
        progress(f"{pipeline.spec.name}: scoring {partitions}{runs} by v{work.backfill.model_version}.")
    outcome = build(pipeline, work, shown, home=home, allow_fewer_rows=allow_fewer_rows)
    del outcome["backfill_id"], outcome["made"], outcome["done_before"], outcome["published_before"]
    return outcome, shown.results


def _show_dry(pipeline: str, plan: Plan | None, partitions: Sequence[Partition], as_json: bool) -> None:
    keys = [each.key for each in partitions]
    if as_json:
        show_json({"pipeline": pipeline, "partitions": keys} | ({"plan": as_dict(plan)} if plan else {}))
    elif plan:
        show_plan(plan)
    else:
        echo(f"{pipeline}: {plural(len(keys), 'partition')} would be scored: {_listed(keys)}")


def _report(
    pipeline: Pipeline, work: Work, outcome: dict[str, Any], results: Sequence[PartitionResult], selected: Selection
) -> None:
    """How it ended in a sentence, a short table, and what to type next."""
    name, failed = pipeline.spec.name, outcome["failed"]
    on_hold = len(outcome["on_hold"])
    waiting = f"; {plural(on_hold, 'partition')} on hold, see `pip-dagster plan {name}`" if on_hold else ""
    if not work.chunks:
        echo(f"{name}: nothing is stale{waiting}.")
        return
    state = "cancelled" if outcome["cancelled"] else "stopped by an error" if outcome["error"] else "done"
    scored = outcome["built"] - outcome["reused"]
    echo(
        f"{name}: {state} after {outcome['seconds']:.1f} s. {scored:,} of {plural(work.remaining, 'partition')} "
        f"scored, {outcome['reused']:,} up to date, {len(failed):,} failed or blocked{waiting}."
    )
    if results:
        columns = ["partition", "state", "rows", "quarantined", "mean score"]
        show_table(None, columns, [[*_record(each).values()][:5] for each in results[-_SHOWN:]])
    for key, reason in list(failed.items())[:_SHOWN]:
        echo(f"{key}: {reason}")
    if len(failed) > _SHOWN:
        echo(f"and {len(failed) - _SHOWN:,} more; list them with `pip-dagster status {name}`.")
    if outcome["error"]:
        echo(f"Error: {outcome['error']}", err=True)
    _say_next(name, work, outcome, results, selected)


def _say_next(
    name: str, work: Work, outcome: dict[str, Any], results: Sequence[PartitionResult], selected: Selection
) -> None:
    if outcome["cancelled"] or outcome["error"]:
        words = [f"{first}..{last}" if first != last else str(first) for first, last in _ranges(work, selected)]
        again = shlex.join(["pip-dagster", "run", name, *words])
        echo(f"{plural(outcome['built'], 'partition')} stored; they stay. To score the others:\n  {again}")
    elif outcome["failed"]:
        echo(f"Next:\n  pip-dagster lineage {name} {next(iter(outcome['failed']))}\n  pip-dagster status {name}")
    else:
        echo(f"Next:\n  pip-dagster status {name}\n  pip-dagster report {name}")


def _ranges(work: Work, selected: Selection) -> list[tuple[str, str]]:
    """What to name to go on; nothing where what was stale is stale still."""
    return [(chunk[0].key, chunk[-1].key) for chunk in work.chunks] if selected else []


def _record(result: PartitionResult) -> dict[str, Any]:
    scoring = result.scoring
    status = scoring.status if scoring else "failed"
    return {
        "partition": result.partition.key,
        "state": "up to date" if result.reused else status if result.error is None or status != "scored" else "failed",
        "rows": scoring and scoring.rows_scored,
        "quarantined": scoring and scoring.rows_quarantined,
        "mean_score": scoring and scoring.mean_score,
        "error": result.error,
    }


def _reasons(each: Any) -> str:
    return "; ".join(reason.text for reason in each.reasons)


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN:,} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
