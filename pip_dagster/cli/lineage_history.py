"""`pip-dagster lineage` about the past: the scoring live at a time, and every score of a key."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from pip_dagster.cli.audit import open_ledger
from pip_dagster.cli.cells import moment
from pip_dagster.cli.output import show_json, show_pairs, show_table
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.split import BUCKETS
from pip_dagster.ledger.history import live_changes, scores_of_key
from pip_dagster.registry.store import Registry

if TYPE_CHECKING:
    from pip_dagster.registry.aliases import AliasChange


def show_as_of(project: Project, pipeline: str, partition: str, at: datetime, as_json: bool) -> None:
    """Show the scoring of a partition that was live at an instant, who made it live and who promoted its version."""
    alias = find_pipeline(project, pipeline).spec.scoring.alias
    with open_ledger(project, "lineage") as con:
        changes = live_changes(con, pipeline, partition)
    if not changes:
        raise click.ClickException(f"{pipeline}: partition {partition!r} has never had a live scoring.")
    if not (past := [change for change in changes if change["live_from"] <= at]):
        raise click.ClickException(
            f"{pipeline}, partition {partition}: nothing was live at {moment(at)}; the first scoring went live at "
            f"{moment(changes[0]['live_from'])}."
        )
    live = past[-1]
    promotion = _promotion(project, alias, live)
    if as_json:
        show_json(live | {"promotion": promotion.model_dump() if promotion else None})
        return
    until = live["live_until"]
    rows = [
        ("model", f"{live['model_name']} v{live['model_version']}"),
        ("live from", moment(live["live_from"])),
        ("live until", until or "now"),
        ("made live by", live["changed_by"]),
        ("why", live["why"]),
        ("run", live["changed_by_run"]),
        ("promoted by", f"{promotion.by} at {moment(promotion.at)}" if promotion else "no alias named it at the time"),
        ("promoted because", promotion.why if promotion else None),
        ("scored at", moment(live["made_at"])),
        ("scoring", live["scoring_id"]),
        ("model digest", live["model_digest"]),
        ("feature digest", live["feature_digest"]),
        ("score digest", live["score_digest"]),
        ("rows scored", live["rows_scored"]),
        *((f"arm {arm['arm']}", _arm(arm)) for arm in live["arms"]),
    ]
    show_pairs(f"{pipeline}, partition {partition}: live at {moment(at)}", rows)


def show_key(project: Project, pipeline: str, key: tuple[str, ...], partition: str | None, as_json: bool) -> None:
    """Show every score of a key, live or not."""
    spec = find_pipeline(project, pipeline).spec
    columns = spec.features.key
    if len(key) != len(columns):
        raise click.UsageError(
            f"The key of {pipeline} is {', '.join(columns)}: pass --key {len(columns)} times, in this order."
        )
    with open_ledger(project, "lineage") as con:
        found = scores_of_key(con, pipeline, columns, key, partition)
    if as_json:
        show_json(found)
        return
    named = ", ".join(f"{name} = {value}" for name, value in zip(columns, key, strict=True))
    if not found:
        where = f" in partition {partition}" if partition else ""
        raise click.ClickException(f"{pipeline} has never scored {'this key' if spec.privacy else named}{where}.")
    known = {"partition_key", "scoring_id", "made_at", "made_by", "model_name", "model_version", "role", "status"}
    scores = [name for name in found[0] if name not in {*known, *columns, "is_live", "arm", "feature_revision"}]
    show_table(
        f"{pipeline}: every score of {named}",
        [
            *("partition", "model", Heading("role", optional=True), "live", Heading("status", optional=True), *scores),
            *(Heading(name, optional=True) for name in ("scored at", "by", "scoring")),
        ],
        (
            [
                row["partition_key"],
                f"{row['model_name']} v{row['model_version']}",
                row["role"],
                f"yes, by {row['arm']}" if row["is_live"] else "no",
                row["status"],
                *(row[name] for name in scores),
                row["made_at"],
                row["made_by"],
                row["scoring_id"],
            ]
            for row in found
        ),
    )


def _arm(arm: dict[str, Any]) -> str:
    share = (arm["high"] - arm["low"]) / BUCKETS
    return (
        f"{share:.2%} of the units, buckets {arm['low']} to {arm['high'] - 1} of {arm['salt']!r}: {arm['scoring_id']}"
    )


def _promotion(project: Project, alias: str, live: dict[str, Any]) -> AliasChange | None:
    """The last move of the alias to the version, before it was scored or rolled back to."""
    moves = Registry(project.registry).alias_history(live["model_name"], alias)
    before = [move for move in moves if move.version == live["model_version"] and move.at <= live["live_from"]]
    return before[-1] if before else None
