"""`pip-dagster performance`: how good the scores were, as far as labels are there, and whether they got worse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, progress, show_json, show_table
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.ledger.performance import PerformanceRow
    from pip_dagster.monitoring.coverage import Coverage
    from pip_dagster.monitoring.finding import Finding
    from pip_dagster.monitoring.performance import Performance, WindowFigure

_STATES = ("mature", "maturing", "waiting", "overdue")


@click.command()
@click.argument("pipeline")
@click.option("--partition", "key", help="All figures of this partition, and of its segments.")
@click.option("--last", type=click.IntRange(min=1), help="List the newest partitions with their labels.")
@click.option(
    "--evaluate", "evaluates", is_flag=True, help="First evaluate partitions whose labels are new or changed."
)
@click.option("--from", "first", help="With --evaluate: the first partition.")
@click.option("--to", "until", help="With --evaluate: the last partition.")
@json_option
@click.pass_obj
def performance(
    project: Project,
    pipeline: str,
    key: str | None,
    last: int | None,
    evaluates: bool,
    first: str | None,
    until: str | None,
    as_json: bool,
) -> None:
    """Show how good PIPELINE's scores were, by the labels that are there.

    Without an option: the newest 1, 7 and 28 partitions that count, by version, arm and segment, and the verdict.
    """
    if key is not None and last is not None:
        raise click.UsageError("--partition and --last cannot be combined.")
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
    problems = _evaluate(declared, first, until) if evaluates else {}
    with workspace(threads=1) as con:
        of = read_performance(con, declared, last=max(84, last or 0), also=[key] if key else ())
    if not any(each.labelled for each in of.partitions):
        _nothing(pipeline, of, problems)
        return
    if key is not None:
        _show_partition(pipeline, of, key, as_json)
    elif last is not None:
        _show_partitions(pipeline, of, last, as_json)
    else:
        findings = judge_performance(pipeline, of, declared.spec.monitoring or Monitoring())
        _show_windows(pipeline, of, findings, as_json)
    _report(problems)


def _evaluate(pipeline: Pipeline, first: str | None, until: str | None) -> dict[str, str]:
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
    return f"partition {keys[0]}" if len(keys) == 1 else f"{len(keys):,} partitions, {keys[0]} to {keys[-1]}"


def _nothing(pipeline: str, of: Performance, problems: dict[str, str]) -> None:
    _report(problems)
    if not of.partitions:
        raise DeclarationError(f"Pipeline {pipeline} has no live partition.")
    states = {each.state for each in of.partitions}
    raise DeclarationError(
        f"Pipeline {pipeline}: no live partition is evaluated; {plural(len(of.partitions), 'partition')} are "
        f"{' or '.join(sorted(states))}. `pip-dagster performance {pipeline} --evaluate` reads the labels."
    )


def _show_windows(pipeline: str, of: Performance, findings: Sequence[Finding], as_json: bool) -> None:
    windows, groups = _windows(of), _groups(of)
    newest = min(28, len(of.counting()))
    if as_json:
        figures = [asdict(each) for each in (*windows, *groups)]
        show_json(
            {"metric": of.metric, "windows": figures, "labels": _counts(of), "findings": [*map(asdict, findings)]}
        )
        return
    columns = ["partitions", "rows", "labelled", of.metric, "95% interval"]
    rows = [[f"{each.partitions} to {each.last}", *_figure(each)] for each in windows]
    show_table(f"{pipeline}: the newest partitions that count", columns, rows)
    if groups:
        show_table(
            f"The newest {newest}, by version, arm and segment",
            ["rows of", *columns[1:]],
            [[_name(each), *_figure(each)] for each in groups],
        )
    counts = _counts(of)
    echo("Labels: " + ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state]) + ".")
    for each in findings:
        if each.state == "warning":
            echo(f"Warning: {each.cause}.")
    alarms = [each for each in findings if each.state == "alarm"]
    for each in alarms:
        echo(
            f"In alarm: {each.subject}: {each.cause}. Without a change, {each.chance or 0:.2%} of partitions have this."
        )
    judged = [each for each in findings if each.rule != "labels"]
    if not alarms and any(each.state == "ok" for each in judged):
        echo("No loss beyond what is allowed.")
    elif not alarms:
        echo(f"Not judged yet: {judged[0].cause if judged else 'no labelled partition counts yet'}.")


def _windows(of: Performance) -> list[WindowFigure]:
    from pip_dagster.monitoring.performance import WINDOWS

    counting = of.counting()
    lengths = [each for each in WINDOWS if each <= len(counting)]
    return [figure for length in lengths if (figure := of.window(counting[-length:])) is not None]


def _groups(of: Performance) -> list[WindowFigure]:
    """The newest 28 partitions by version and arm, if there are several, and by segment."""
    from pip_dagster.monitoring.performance import WINDOWS

    found: list[WindowFigure | None] = []
    arms = dict.fromkeys(each.part.arm for each in of.partitions)
    newest = of.counting()[-max(WINDOWS) :]
    versions = sorted({each.part.model_version for each in newest})
    if len(versions) > 1:
        found += [of.window([each for each in newest if each.part.model_version == v]) for v in versions]
    found += [of.window(of.counting(arm)[-max(WINDOWS) :]) for arm in arms if len(arms) > 1]
    found += [of.window(newest, segment) for segment in of.segments(newest)]
    return [each for each in found if each is not None]


def _show_partitions(pipeline: str, of: Performance, last: int, as_json: bool) -> None:
    starts = sorted({each.part.live.start for each in of.partitions})[-last:]
    shown = [each for each in of.partitions if each.part.live.start >= starts[0]]
    if as_json:
        show_json([_plain(of, each) for each in shown])
        return
    rows = []
    for each in shown:
        figure = (
            of.window([each])
            if each.labelled and each.evaluation and each.evaluation.evaluation_id in of.rows
            else None
        )
        numbers = _figure(figure) if figure else [each.rows, _share(each.coverage), None, None]
        arm = "" if each.part.arm == "champion" else f" {each.part.arm}"
        rows.append(
            [each.partition_key, f"v{each.part.model_version}{arm}", each.state, *numbers, ", ".join(_marks(each))]
        )
    columns = ["partition", "version", "labels", "rows", "labelled", of.metric, "95% interval", "note"]
    show_table(f"{pipeline}: performance", columns, rows, optional=["95% interval"])


def _show_partition(pipeline: str, of: Performance, key: str, as_json: bool) -> None:
    shown = [each for each in of.partitions if each.partition_key == key]
    if not shown:
        raise DeclarationError(f"Pipeline {pipeline}: partition {key!r} is not live.")
    if as_json:
        show_json([_plain(of, each, segments=True) for each in shown])
        return
    for each in shown:
        notes = "".join(f"; {mark}" for mark in _marks(each))
        arm = "" if each.part.arm == "champion" else f", arm {each.part.arm}"
        counts = f"{each.labelled:,} of {each.rows:,} rows labelled"
        title = f"{pipeline}, partition {key}, v{each.part.model_version}{arm}: {counts}"
        rows = of.rows.get(each.evaluation.evaluation_id, []) if each.evaluation else []
        echo(f"{title}, {each.state}{notes}")
        for row in rows:
            if row.segment is None:
                show_table(
                    None,
                    ["figure", "value", "rows", "95% interval", "reweighted"],
                    _figures(row),
                    optional=["reweighted"],
                )
        segments = [
            [f"{row.segment} = {row.segment_value}", row.rows, row.labelled, _of_metric(row, of.metric)]
            for row in rows
            if row.segment
        ]
        if segments:
            show_table(None, ["segment", "rows", "labelled", of.metric], segments)


def _figures(row: PerformanceRow) -> Iterable[list[Any]]:
    for i, name in enumerate(row.metrics):
        reweighted = row.reweighted[i] if row.reweighted else None
        yield [
            name,
            _rounded(row.figures[i]),
            row.counts[i],
            _interval(row.lows[i], row.highs[i]),
            _rounded(reweighted),
        ]


def _of_metric(row: PerformanceRow, metric: str) -> float | None:
    return _rounded(row.figures[row.metrics.index(metric)]) if metric in row.metrics else None


def _plain(of: Performance, each: Coverage, *, segments: bool = False) -> dict[str, Any]:
    """A partition for machines."""
    evaluation = each.evaluation
    rows = of.rows.get(evaluation.evaluation_id, []) if evaluation else []
    figures = [
        {"segment": row.segment, "segment_value": row.segment_value, "rows": row.rows, "labelled": row.labelled}
        | {"metrics": dict(zip(row.metrics, row.figures, strict=True))}
        for row in rows
        if segments or row.segment is None
    ]
    return {
        "partition_key": each.partition_key,
        "scoring_id": each.part.live.scoring_id,
        "model_version": each.part.model_version,
        "arm": each.part.arm,
        "state": each.state,
        "rows": each.rows,
        "labelled": each.labelled,
        "coverage": each.coverage,
        "restated": each.restated,
        "unlike_rest": each.unlike_rest,
        "labels_digest": evaluation.labels_digest if evaluation else None,
        "evaluated_at": evaluation.evaluated_at if evaluation else None,
        "figures": figures,
    }


def _marks(each: Coverage) -> list[str]:
    marks = ["labelled rows are not like the rest"] if each.unlike_rest else []
    return [*marks, *(["restated"] if each.restated else [])]


def _counts(of: Performance) -> dict[str, int]:
    return {state: sum(each.state == state for each in of.partitions) for state in _STATES}


def _name(of: WindowFigure) -> str:
    if of.segment is not None:
        return f"{of.segment} = {of.segment_value}"
    return of.arm if of.arm != "champion" else f"v{of.version}"


def _figure(of: WindowFigure) -> list[Any]:
    share = _share(of.labelled / of.rows if of.rows else 0.0)
    return [of.rows, share, _rounded(of.value), _interval(of.low, of.high)]


def _share(value: float) -> str:
    return f"{value:.1%}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4g} to {high:.4g}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
