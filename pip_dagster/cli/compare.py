"""`pip-dagster models compare`: the challengers' scores beside the live ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from pip_dagster.cli.canary import states
from pip_dagster.cli.options import json_option, last_option
from pip_dagster.cli.output import echo, show_json, show_table
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError
from pip_dagster.registry.choose import registry_of


@click.command()
@click.argument("pipeline")
@last_option
@click.option("--arms", is_flag=True, help="Outcomes of the arms of a split, by the labels of the gates.")
@json_option
@click.pass_obj
def compare(project: Project, pipeline: str, last: int, arms: bool, as_json: bool) -> None:
    """Compare the challengers' scores with the live ones, partition by partition.

    With --arms: the labels of each arm's rows by intention to treat, with confidence intervals.
    """
    from pip_dagster.ledger.challengers import compare as compare_scores
    from pip_dagster.warehouse.access import reading
    from pip_dagster.warehouse.connect import workspace

    declared = find_pipeline(project, pipeline)
    if arms:
        _compare_arms(project, declared, last, as_json)
        return
    spec = declared.spec
    live = registry_of(project, spec.scoring).get(spec.scoring.model_name, spec.scoring.alias)
    purpose = "comparing models"
    with workspace(threads=2) as con, reading(con, project, purpose=purpose):
        found = compare_scores(con, spec, live.manifest.outputs[0])
    found = found[-last:]
    if not found and not spec.scoring.compared:
        raise DeclarationError(
            f"Pipeline {pipeline} declares no challenger, split or canary. Declare `scoring: {{challengers: "
            "[challenger]}`, and point the alias at a version with `pip-dagster models promote "
            f"{spec.scoring.model_name} VERSION --alias challenger`."
        )
    if not as_json and spec.scoring.canary:
        for state in states(project, declared, spec.scoring.canary):
            echo(f"{pipeline}: {state['text']}")
    if as_json:
        show_json([asdict(each) for each in found])
        return
    if not found:
        echo(
            f"{pipeline}: no challenger has scored a partition that is live. Point its alias at a version with "
            f"`pip-dagster models promote {spec.scoring.model_name} VERSION --alias {spec.scoring.compared[0]}`, and "
            "run the partitions that are to be compared."
        )
        return
    _show_challengers(pipeline, found)


def _show_challengers(pipeline: str, found: Sequence[Any]) -> None:
    decisions = sorted({name for each in found for name in each.flips})
    columns = ["partition", "live", "challenger", "rows", "live mean", "challenger mean", "mean |difference|"]
    rows = [
        [
            each.partition_key,
            f"v{each.champion_version}",
            f"v{each.challenger_version}",
            *(each.rows, each.champion_mean, each.challenger_mean, each.mean_absolute_difference),
            *(each.flips.get(name) for name in decisions),
        ]
        for each in found
    ]
    show_table(f"{pipeline}: challengers", [*columns, *(f"flips of {name}" for name in decisions)], rows)


def _compare_arms(project: Project, declared: Pipeline, last: int, as_json: bool) -> None:
    from pip_dagster.promotion.arm_outcomes import arm_outcomes
    from pip_dagster.warehouse.connect import workspace

    spec = declared.spec
    if spec.scoring.experiment is None:
        raise DeclarationError(
            f"Pipeline {spec.name} has no split, so it has no arms to compare. docs/experiments.md has an example."
        )
    manifest = registry_of(project, spec.scoring).get(spec.scoring.model_name, spec.scoring.alias).manifest
    with workspace(threads=2) as con:
        found = arm_outcomes(con, declared, manifest, last)
    if as_json:
        show_json([asdict(each) for each in found])
        return
    experiment, labels = spec.scoring.experiment, declared.labels
    if not found:
        echo(f"{spec.name} has no partition in its {experiment.kind} {experiment.salt!r}. See docs/experiments.md.")
        return
    title = f"{spec.name}: arms, figures with {declared.gates.confidence:.0%} intervals"
    _show_arms(title, labels.outcome if labels else "outcome", found)
    if not labels:
        echo("Declare labels to see outcomes.")


def _show_arms(title: str, outcome: str, found: Sequence[Any]) -> None:
    from pip_dagster.promotion.arm_outcomes import shown

    metric = found[0].metric_name or "metric"
    measured = (f"mean {outcome}", "minus champion's", metric, f"{metric} minus champion's")
    columns = ["arm", "version", "partitions", "rows", "units", "labelled"]
    columns += [Heading(name, whole=True) for name in measured]
    show_table(title, columns, [shown(each) for each in found])
