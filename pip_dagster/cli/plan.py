"""`pip-dagster plan`: which partitions are stale, and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from pip_dagster.cli.cells import moment
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, progress, show_json, show_table
from pip_dagster.cli.pending import pending_text
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.ranges import contiguous
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.ledger.plan import Plan

_SHOWN = 50


@click.command()
@click.argument("pipeline")
@partition_selection("to evaluate", several=True)
@json_option
@click.pass_obj
def plan(project: Project, pipeline: str, as_json: bool, selected: Selection) -> None:
    """List the stale partitions of PIPELINE with reasons, and those on hold. Runs nothing.

    Compares the sources, the declaration and the live version with what the ledger recorded for each partition.
    """
    found = plan_now(project, pipeline, selected)
    if as_json:
        show_json(as_dict(found))
    else:
        show_plan(found)


def plan_now(project: Project, name: str, selected: Selection | None = None) -> Plan:
    """The plan of the partitions that have closed, or of those among them that are named.

    Raises:
        PipelineError: a key names no partition that has closed; the declaration, a source or the warehouse cannot be
            read.
    """
    from pip_dagster.declaration.grid import closed_partitions
    from pip_dagster.flow.plan import make_plan

    pipeline, now = find_pipeline(project, name), datetime.now(UTC)
    partitions = closed_partitions(pipeline.spec.partitions, now)
    return make_plan(pipeline, (selected or Selection()).among(partitions, name), now=now)


def as_dict(found: Plan) -> dict[str, Any]:
    """A plan for machines; `due` and `held` are the former names of `stale` and `on_hold`."""

    def reasons(each: Any) -> list[dict[str, str]]:
        return [{"kind": reason.kind, "text": reason.text} for reason in each.reasons]

    stale = [
        {"partition": each.partition.key, "attempt": each.attempt, "wanted": each.wanted, "reasons": reasons(each)}
        for each in found.stale
    ]
    on_hold = [{"partition": each.partition.key, "reasons": reasons(each)} for each in found.on_hold]
    names = {"stale": stale, "on_hold": on_hold, "due": stale, "held": on_hold}
    purged = [{"purge": each.purge_id, "at": each.at, "partitions": list(each.keys)} for each in found.purged]
    left_out: dict[str, Any] = {"purged": purged, "expired": found.expired}
    left_out["hashed"] = {name: {"place": place, "rows": rows} for name, (place, rows) in found.hashed.items()}
    return {"pipeline": found.pipeline, **names, "current": found.current, "pending": list(found.pending), **left_out}


def show_plan(found: Plan) -> None:
    """The plan as a table: neighbors with the same reasons on one line."""
    rows = _ranges(found.stale, "stale") + _ranges(found.on_hold, "on hold")
    stale = plural(len(found.stale), "stale partition")
    echo(f"{found.pipeline}: {stale}, {len(found.on_hold):,} on hold, {found.current:,} current")
    if rows:
        show_table(None, ["partitions", "number", "state", Heading("why", below=True)], rows[:_SHOWN])
    if len(rows) > _SHOWN:
        progress(f"{plural(len(rows) - _SHOWN, 'more line')}: list them all with --json.")
    for each in found.purged:
        first, last = each.keys[0], each.keys[-1]
        span = first if first == last else f"{first} to {last}"
        echo(
            f"{span}: {plural(len(each.keys), 'partition')} purged at {moment(each.at)}, not built again: "
            f"`pip-dagster certificate {each.purge_id}`."
        )
    if found.expired:
        are = "are" if found.expired > 1 else "is"
        text = "older than `privacy.retention.content` allows, and not built"
        echo(f"{plural(found.expired, 'partition')} {are} {text}.")
    from pip_dagster.flow.hashed import HINT, MANY, hashes

    for name, (place, count) in found.hashed.items():
        if count >= MANY:
            echo(f"Source {name}: {hashes(place, count)}. {HINT}")
    if found.pending:
        echo(pending_text(found.pipeline, found.pending))


def _ranges(listed: Sequence[Any], state: str) -> list[list[Any]]:
    rows = []
    why_of = {each.partition: "; ".join(reason.text for reason in each.reasons) for each in listed}
    for adjoining in contiguous(list(why_of)):
        for why, partitions in groupby(adjoining, key=why_of.__getitem__):
            keys = [partition.key for partition in partitions]
            rows.append([keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}", len(keys), state, why])
    return rows
