"""`pip-dagster performance`: how good the scores were, as far as labels are there, and whether they got worse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import progress
from pip_dagster.cli.performance_shown import show_partition, show_partitions, show_windows
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.monitoring.performance import Performance


@click.command()
@click.argument("pipeline")
@partition_selection("whose figures are shown, with its segments", bounds=False)
@click.option("--last", type=click.IntRange(min=1), help="List the newest partitions with their labels.")
@click.option(
    "--evaluate", "evaluates", is_flag=True, help="First evaluate partitions whose labels are new or changed."
)
@click.option("--from", "first", metavar="KEY", help="With --evaluate: the first partition.")
@click.option("--to", "until", metavar="KEY", help="With --evaluate: the last partition.")
@json_option
@click.pass_obj
def performance(
    project: Project,
    pipeline: str,
    last: int | None,
    evaluates: bool,
    first: str | None,
    until: str | None,
    as_json: bool,
    selected: Selection,
) -> None:
    """Show how good PIPELINE's scores were, by the labels that are there.

    With PARTITION: all its figures, and those of its segments. Without it and without an option: the newest 1, 7 and
    28 partitions that count, by version, arm and segment, and the verdict.
    """
    key = selected.one
    if key is not None and last is not None:
        raise click.UsageError("A partition and --last cannot be combined.")
    if (first or until) and not evaluates:
        raise click.UsageError("--from and --to go with --evaluate.")
    from pip_dagster.monitoring.performance import judge_performance, read_performance
    from pip_dagster.warehouse.connect import workspace

    declared = find_pipeline(project, pipeline)
    if declared.labels is None:
        raise DeclarationError(
            f"Pipeline {pipeline} declares no labels. Declare `labels: {{sql: labels.sql, outcome: COLUMN}}` in its "
            "defs.yaml; docs/performance.md has an example."
        )
    problems = evaluate_labels(declared, first, until) if evaluates else {}
    with workspace(threads=1) as con:
        of = read_performance(con, declared, last=max(84, last or 0), also=[key] if key else ())
    if not any(each.labelled for each in of.partitions):
        _report(problems)
        _nothing(pipeline, of, evaluates)
        return
    if key is not None:
        show_partition(pipeline, of, key, as_json)
    elif last is not None:
        show_partitions(pipeline, of, last, as_json)
    else:
        findings = judge_performance(pipeline, of, declared.spec.monitoring or Monitoring())
        show_windows(pipeline, of, findings, as_json)
    _report(problems)


def evaluate_labels(
    pipeline: Pipeline, first: str | None, until: str | None, *, progress: Callable[[str], None] = progress
) -> dict[str, str]:
    """Evaluate the labels from one partition to another, judge, and calibrate; problems by partition."""
    from pip_dagster.flow.engine import available_threads
    from pip_dagster.flow.performance import evaluate, live_keys
    from pip_dagster.monitoring.estimating import calibrate_after_labels
    from pip_dagster.monitoring.performance import performance_findings
    from pip_dagster.monitoring.watch import watch_findings
    from pip_dagster.warehouse.connect import workspace

    name = pipeline.spec.name
    with workspace(threads=available_threads()) as con:
        keys = live_keys(con, pipeline)
        for given in (first, until):
            if given is not None and given not in keys:
                span = f"from {keys[0]} to {keys[-1]}" if keys else "none"
                raise DeclarationError(f"Pipeline {name}: partition {given!r} is not live; there are {span}.")
        if first and until and keys.index(first) > keys.index(until):
            raise DeclarationError(f"Pipeline {name}: --from {first} is later than --to {until}. Swap them.")
        low, high = keys.index(first) if first else 0, keys.index(until) if until else len(keys)
        wanted = keys[low : high + 1]
        found = evaluate(con, pipeline, wanted, progress=progress)
        watch_findings(pipeline, performance_findings(con, pipeline))
        if why := calibrate_after_labels(con, pipeline):
            progress(f"{name}: no calibrator for estimates: {why}.")
    counts = f"{plural(len(found.done), 'partition')} evaluated, {len(found.unchanged)} unchanged"
    progress(f"{name}: {counts}, {len(found.unlabelled)} without labels.")
    return found.problems


def _report(problems: dict[str, str]) -> None:
    """End with an error if partitions could not be evaluated, after what is known was shown."""
    if problems:
        keys: dict[str, list[str]] = {}
        for key, why in sorted(problems.items()):
            keys.setdefault(why, []).append(key)
        shown = "\n".join(f"  {_listed(of)}: {why}" for why, of in [*keys.items()][:20])
        raise DeclarationError(
            f"{plural(len(problems), 'partition')} could not be evaluated; the others were, and earlier figures are "
            f"unchanged.\n{shown}"
        )


def _listed(keys: Sequence[str]) -> str:
    return f"partition {keys[0]}" if len(keys) == 1 else f"{plural(len(keys), 'partition')}, {keys[0]} to {keys[-1]}"


def _nothing(pipeline: str, of: Performance, evaluated: bool) -> None:
    """Say why there is nothing to show: no error where labels were read and none is there yet, as each day before."""
    if not of.partitions:
        raise DeclarationError(f"Pipeline {pipeline} has no live partition.")
    states = " or ".join(sorted({each.state for each in of.partitions}))
    text = (
        f"Pipeline {pipeline}: no live partition is evaluated; {plural(len(of.partitions), 'partition')} are {states}."
    )
    if not evaluated:
        raise DeclarationError(f"{text} `pip-dagster performance {pipeline} --evaluate` reads the labels.")
    progress(text)
