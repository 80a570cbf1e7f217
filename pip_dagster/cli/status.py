"""`pip-dagster status`: which partitions are live, by which model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from pip_dagster.cli.cells import Seconds
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import show_json, show_table
from pip_dagster.cli.partition_status import PartitionStatus, SplitState, partition_count, partition_statuses
from pip_dagster.cli.pending import Waiting, read_waiting
from pip_dagster.cli.plan import as_dict, plan_now, show_plan
from pip_dagster.cli.published import check_pipeline, open_published, rows_of
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.cli.table import Heading
from pip_dagster.cli.undelivered import Undelivered, read_undelivered
from pip_dagster.declaration.project import Project
from pip_dagster.errors import WarehouseError
from pip_dagster.plural import plural

_ALL = 10**9  # partitions
_PIPELINES = """
  SELECT pipeline, count(DISTINCT partition_key) FILTER (is_live) AS partitions,
         min(partition_key) FILTER (is_live) AS first, max(partition_key) FILTER (is_live) AS last,
         sum(rows_scored) FILTER (is_live) ::BIGINT AS rows,
         string_agg(DISTINCT 'v' || model_version, ', ' ORDER BY 'v' || model_version) FILTER (is_live) AS live_models,
         max(made_at) FILTER (is_live) AS last_scored
  FROM ledger.partitions GROUP BY pipeline ORDER BY pipeline
"""
_OPTIONAL = ("first", "live_models", "last_scored")
_PARTITION_COLUMNS = [
    *("partition", "state", "rows", Heading("quarantined", optional=True), "model", "mean score"),
    *(Heading("scoring time", optional=True), Heading("scored at", optional=True)),
    *(Heading("why", below=True), Heading("findings", below=True), Heading("arms", below=True)),
]


@click.command()
@click.argument("pipeline", required=False)
@partition_selection("to show instead of the newest", several=True)
@click.option(
    "--last", "newest", default=31, show_default=True, type=click.IntRange(min=1), help="How many partitions to show."
)
@click.option("--why", is_flag=True, help="Also the stale partitions with reasons, as `plan` lists them.")
@json_option
@click.pass_obj
def status(project: Project, pipeline: str | None, newest: int, why: bool, as_json: bool, selected: Selection) -> None:
    """Show all pipelines, or the newest partitions of PIPELINE, or those that are named."""
    if selected and pipeline is None:
        raise click.UsageError("--from and --to are about one pipeline: name it.")
    if why and pipeline is None:
        raise click.UsageError("--why is about one pipeline: name it.")
    summaries: list[dict[str, Any]] = []
    partitions: list[PartitionStatus] = []
    total = 0
    waiting = read_waiting(project)
    if waiting.of and not project.published_database.is_file():
        waiting.show()
        raise WarehouseError(f"Nothing is published yet: there is no {project.published_database}.")
    with open_published(project) as con:
        if pipeline is None:
            summaries = _with_pending(rows_of(con, _PIPELINES), waiting)
        else:
            if pipeline not in waiting.of:
                check_pipeline(con, pipeline)
            total = partition_count(con, pipeline)
            listed = partition_statuses(con, pipeline, _ALL if selected else newest)
            partitions = _with_pending_keys(listed, waiting.keys(pipeline))
            if selected:
                keys = sorted(each.partition_key for each in partitions)
                partitions = [each for each in partitions if selected.has(each.partition_key)]
                if not partitions:
                    known = f"{keys[0]} to {keys[-1]}" if keys else "none"
                    raise click.ClickException(
                        f"{pipeline} has no attempt at any of these partitions; it has {known}. "
                        f"`pip-dagster plan {pipeline}` lists what is stale."
                    )
                total = len(partitions)
    plan = plan_now(project, pipeline) if why and pipeline else None
    undelivered = read_undelivered(project, pipeline)
    if as_json:
        found = _with_undelivered(summaries or [each.as_dict() for each in partitions], undelivered, pipeline)
        show_json({"partitions": found, "plan": as_dict(plan)} if plan else found)
        waiting.show()
        return
    if pipeline is None:
        columns = list(summaries[0]) if summaries else ["pipeline"]
        show_table(
            "Pipelines",
            [Heading(name.replace("_", " "), optional=name in _OPTIONAL) for name in columns],
            [list(row.values()) for row in summaries],
        )
    else:
        show_partitions(pipeline, partitions, total)
    if plan:
        show_plan(plan)
    undelivered.show()
    waiting.show()


def _with_undelivered(found: list[dict[str, Any]], of: Undelivered, pipeline: str | None) -> list[dict[str, Any]]:
    """What is not delivered, by pipeline, or by partition of one that declares targets."""
    if pipeline is None:
        return [
            row | ({"deliveries": of.summary(row["pipeline"])} if row["pipeline"] in of.of else {}) for row in found
        ]
    if pipeline not in of.of:
        return found
    return [row | {"undelivered": of.targets(pipeline, row["partition_key"])} for row in found]


def _with_pending(summaries: list[dict[str, Any]], waiting: Waiting) -> list[dict[str, Any]]:
    """How many partitions of each pipeline are pending; also of those of which nothing is published."""
    columns = list(summaries[0]) if summaries else ["pipeline"]
    unpublished = sorted(waiting.of.keys() - {row["pipeline"] for row in summaries})
    rows = [*summaries, *(dict.fromkeys(columns) | {"pipeline": name} for name in unpublished)]
    counts = [waiting.keys(row["pipeline"]) for row in rows]
    return [row | {"pending": None if keys is None else len(keys)} for row, keys in zip(rows, counts, strict=True)]


def _with_pending_keys(partitions: list[PartitionStatus], keys: list[str] | None) -> list[PartitionStatus]:
    """The partitions with whether each is pending; those of which nothing is published at the end."""
    if keys is None:
        return [replace(each, pending=None) for each in partitions]
    missing = sorted({*keys} - {each.partition_key for each in partitions})
    of_live = (
        *("model_version", "rows", "quarantined", "mean_score", "scored_at", "reason"),
        *("seconds", "cpu_seconds", "peak_memory"),
    )
    empty: dict[str, Any] = dict.fromkeys(of_live) | {"attempts": 0, "provisional": False, "findings": {}}
    added = [PartitionStatus(key, "pending", **empty, split=SplitState({}, []), pending=True) for key in missing]
    return [*(replace(each, pending=each.partition_key in keys) for each in partitions), *added]


def show_partitions(pipeline: str, partitions: Sequence[PartitionStatus], total: int) -> None:
    """The newest partitions as a table, of so many."""
    shown = plural(len(partitions), "partition")
    if len(partitions) < total:
        shown = f"{len(partitions):,} of {plural(total, 'partition')}, --last N for more"
    show_table(
        f"{pipeline}: {shown}",
        _PARTITION_COLUMNS,
        (
            [
                each.partition_key,
                each.state,
                each.rows,
                each.quarantined,
                f"v{each.model_version}" if each.model_version else "",
                each.mean_score,
                each.seconds and Seconds(each.seconds),
                each.scored_at,
                each.why,
                each.found,
                each.split.text,
            ]
            for each in partitions
        ),
    )
