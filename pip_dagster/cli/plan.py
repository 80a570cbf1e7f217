"""`pip-dagster plan`: which partitions should be made again, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pip_dagster.cli.output import show_json, show_table
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project

if TYPE_CHECKING:
    from pip_dagster.ledger.plan import Plan

_SHOWN = 50


@click.command()
@click.argument("pipeline")
@click.option("--from", "first", metavar="KEY", help="The first partition to look at.")
@click.option("--to", "last", metavar="KEY", help="The last partition to look at.")
@click.option("--json", "as_json", is_flag=True, help="For machines: every partition that is stale or on hold.")
@click.pass_obj
def plan(project: Project, pipeline: str, first: str | None, last: str | None, as_json: bool) -> None:
    """Say which partitions of PIPELINE should be made again, and why. Nothing is made.

    Compares what the sources hold, what is declared and which version is live with what the ledger says was made.
    """
    made = plan_now(project, pipeline, first, last)
    if as_json:
        show_json(as_dict(made))
    else:
        show_plan(made)


def plan_now(project: Project, name: str, first: str | None = None, last: str | None = None) -> Plan:
    """The plan of the partitions that can be made by now, from `first` to `last`.

    Raises:
        click.ClickException: a key names no partition that can be made by now.
        PipelineError: the declaration, a source or the warehouse cannot be read.

    """
    from pip_dagster.declaration.grid import closed_partitions
    from pip_dagster.flow.plan import make_plan

    pipeline, now = find_pipeline(project, name), datetime.now(UTC)
    partitions = closed_partitions(pipeline.spec.partitions, now)
    keys = [partition.key for partition in partitions]
    for key in (first, last):
        if key is not None and key not in keys:
            there = f"{keys[0]} to {keys[-1]}" if keys else "none yet"
            raise click.ClickException(f"{name} has no partition {key!r} that can be made by now; it has {there}.")
    begin = keys.index(first) if first else 0
    end = keys.index(last) + 1 if last else len(keys)
    if begin >= end and keys:
        raise click.ClickException(f"--from {first} is after --to {last}.")
    return make_plan(pipeline, partitions[begin:end], now=now)


def as_dict(made: Plan) -> dict[str, Any]:
    """A plan for machines."""

    def reasons(each: Any) -> list[dict[str, str]]:
        return [{"kind": reason.kind, "text": reason.text} for reason in each.reasons]

    stale = [
        {"partition": each.partition.key, "attempt": each.attempt, "wanted": each.wanted, "reasons": reasons(each)}
        for each in made.stale
    ]
    on_hold = [{"partition": each.partition.key, "reasons": reasons(each)} for each in made.on_hold]
    return {
        "pipeline": made.pipeline,
        "stale": stale,
        "on_hold": on_hold,
        "current": made.current,
        **{"due": stale, "held": on_hold},  # their former names
    }


def show_plan(made: Plan) -> None:
    """The plan as a table: neighbours with the same reasons on one line."""
    rows = [[*row, "stale"] for row in _ranges(made.stale)] + [[*row, "on hold"] for row in _ranges(made.on_hold)]
    counts = f"{len(made.stale)} partitions stale, {len(made.on_hold)} on hold, {made.current} current"
    click.echo(f"{made.pipeline}: {counts}")
    if rows:
        shown = [[keys, n, state, why] for keys, n, why, state in rows[:_SHOWN]]
        show_table(None, ["partitions", "number", "", "why"], shown)
    if len(rows) > _SHOWN:
        click.echo(f"{len(rows) - _SHOWN} more lines: see them all with --json.", err=True)


def _ranges(listed: Any) -> list[tuple[str, int, str]]:
    found: list[tuple[list[str], Any, str]] = []
    for each in listed:
        why = "; ".join(reason.text for reason in each.reasons)
        if found and found[-1][2] == why and found[-1][1] == each.partition.start:
            found[-1] = ([*found[-1][0], each.partition.key], each.partition.end, why)
        else:
            found.append(([each.partition.key], each.partition.end, why))
    return [(keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}", len(keys), why) for keys, _, why in found]
