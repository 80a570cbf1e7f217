"""How good the scores were, by the labels that are there: by partition, by segment, by tenth of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster.ledger.arms import CHAMPION
from pip_dagster.ledger.lost_rows import lost_rows
from pip_dagster.ledger.performance import PerformanceRow, live_parts, newest_evaluations, performance_rows
from pip_dagster.monitoring.coverage import Coverage, coverages
from pip_dagster.monitoring.performance import Performance, judge_performance, with_manifest
from pip_dagster.plural import plural
from pip_dagster.reporting.content import (
    LEAST_ROWS,
    CalibrationFigures,
    Day,
    Figure,
    LiftLine,
    MetricSeries,
    Point,
    ReliabilityLine,
    SegmentLine,
)
from pip_dagster.reporting.verdict import Headline
from pip_dagster.statistics.metrics.spec import HIGHER_IS_BETTER, default_metric
from pip_dagster.statistics.metrics.sums import MetricSums, Stack

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.monitoring.finding import Finding
    from pip_dagster.reporting.source import OpenLedger

_WEEK, _WINDOW = 7, 28
# Beside the pipeline's own metric: whether scores are too high or too low on average.
_BIAS = "bias"


def read_measured(
    source: OpenLedger, pipeline: Pipeline, keys: Sequence[str], as_of: datetime | None
) -> Performance | None:
    """The labels' state of the partitions at the ledger's time, with their figures; None where nothing is kept."""
    labels = pipeline.labels
    if labels is None or as_of is None or not source.has("ledger", "evaluations"):
        return None
    name, wanted = pipeline.spec.name, {*keys}
    parts = [part for part in live_parts(source.con, name, purged=True) if part.live.key in wanted]
    lost = lost_rows(source.con, name) if source.has("ledger", "erased_partitions") else {}
    found = coverages(parts, newest_evaluations(source.con, name), labels, as_of, lost)
    ids = [each.evaluation.evaluation_id for each in found if each.evaluation and each.labelled]
    rows: dict[str, list[PerformanceRow]] = {}
    for row in performance_rows(source.con, name, ids) if ids else ():
        rows.setdefault(row.evaluation_id, []).append(row)
    declared = pipeline.spec.monitoring.performance.metric if pipeline.spec.monitoring else None
    sums = next((row.sums for of in reversed(rows.values()) for row in of if row.sums), "")
    metric = declared or (default_metric(Stack.of([MetricSums.from_text(sums)]).spec) if sums else "")
    return with_manifest(pipeline, Performance(metric, tuple(found), rows, None))


def findings_of(pipeline: Pipeline, of: Performance | None) -> list[Finding]:
    """The verdicts of performance, for a ledger without alarms."""
    rules = pipeline.spec.monitoring
    return judge_performance(pipeline.spec.name, of, rules) if of and rules else []


def headline(of: Performance | None, findings: Sequence[Finding]) -> Headline | None:
    """The figure of the newest 7 partitions that count; None without any."""
    window = of.counting()[-_WEEK:] if of else []
    figure = of.window(window) if of else None
    if of is None or figure is None:
        return None
    value = "too few labels to show" if figure.value is None or figure.labelled < LEAST_ROWS else f"{figure.value:.4g}"
    text = f"{of.metric} {value} over {plural(len(window), 'partition')} to {figure.last}, {figure.labelled:,} labels."
    judged = [each for each in findings if each.event == "performance"]
    if any(each.state != "unjudged" for each in judged):
        return Headline(text, "")
    return Headline(text, judged[0].cause.capitalize() if judged else "Declare `monitoring: {}` to judge it")


def with_labels(days: Sequence[Day], of: Performance) -> tuple[Day, ...]:
    """The partitions with the state of the champion's labels."""
    by_key = {each.partition_key: each for each in of.partitions if each.part.arm == CHAMPION}
    return tuple(
        replace(day, labels=found.state, coverage=found.coverage)
        if day.is_live and (found := by_key.get(day.partition))
        else day
        for day in days
    )


def metric_series(of: Performance, days: Sequence[Day], findings: Sequence[Finding]) -> tuple[MetricSeries, ...]:
    """The pipeline's metric, and the mean of score minus outcome where there is one."""
    if not of.metric:
        return ()
    by_key = {each.partition_key: each for each in of.partitions if each.part.arm == CHAMPION}
    held_out = of.manifest.held_out if of.manifest else None
    series = []
    for metric in dict.fromkeys((of.metric, _BIAS)):
        points = tuple(_point(of, day, by_key.get(day.partition), metric) for day in days)
        if metric != of.metric and all(point.value is None for point in points):
            continue
        lines, suppressed = _segments(of) if metric == of.metric else ((), 0)
        base = metric.split(".")[0]
        series.append(
            MetricSeries(
                metric=metric,
                higher_is_better=None if metric == _BIAS else base in HIGHER_IS_BETTER,
                reference=held_out.metrics.get(metric) if held_out else 0.0 if metric == _BIAS else None,
                points=points,
                segments=lines,
                suppressed=suppressed,
                judged=any(each.rule != "labels" and each.state in ("ok", "alarm") for each in findings),
            )
        )
    return tuple(series)


def _point(of: Performance, day: Day, found: Coverage | None, metric: str) -> Point:
    if found is None or found.evaluation is None:
        state = found.state if found else None
        return Point(day.partition, None, None, None, None, found.coverage if found else None, state)
    rows = of.rows.get(found.evaluation.evaluation_id, [])
    row = next((each for each in rows if each.segment is None), None)
    value: Figure = None
    low: Figure = None
    high: Figure = None
    if row and metric in row.metrics and row.labelled >= LEAST_ROWS:
        i = row.metrics.index(metric)
        value, low, high = row.figures[i], row.lows[i], row.highs[i]
    return Point(
        *(day.partition, value, low, high, found.labelled, found.coverage, found.state),
        restated=found.restated,
        unlike_rest=found.unlike_rest,
    )


def _segments(of: Performance) -> tuple[tuple[SegmentLine, ...], int]:
    """Over the newest 28 partitions that count, the worst first; how many are left out for too few labels."""
    window = of.counting()[-_WINDOW:]
    lines, suppressed = [], 0
    for column, value in of.segments(window):
        found = of.window(window, (column, value))
        if found is None or found.labelled < LEAST_ROWS:
            suppressed += 1
            continue
        lines.append(SegmentLine(column or "", value or "''", found.labelled, found.value, found.low, found.high))
    sign = 1 if of.metric.split(".")[0] in HIGHER_IS_BETTER else -1
    lines.sort(key=lambda line: (line.metric is None, sign * (line.metric or 0.0), line.column, line.value))
    return tuple(lines), suppressed


def by_score(of: Performance) -> tuple[tuple[LiftLine, ...], CalibrationFigures | None]:
    """Outcomes by tenth of the scores over the newest 28 partitions that count, and the calibration that they show."""
    window = of.counting()[-_WINDOW:]
    try:
        sums = of.sums(window)
        total = MetricSums.total(sums) if sums else None
    except ValueError:  # versions of different kinds
        return (), None
    if total is None:
        return (), None
    bins = [each for each in total.reliability() if each.rows >= LEAST_ROWS]
    rows = sum(each.rows for each in bins)
    if not bins or not rows:
        return (), None
    mean = sum((each.outcome or 0.0) * each.rows for each in bins) / rows
    lift = tuple(
        LiftLine(i + 1, int(each.rows), each.score, each.outcome, (each.outcome or 0.0) / mean if mean else None)
        for i, each in enumerate(reversed(bins))
    )
    figures = total.metrics()
    error, chance = figures.get("ece"), figures.get("ece_chance")
    if error is None:
        return lift, None
    return lift, CalibrationFigures(
        source=f"Labels of {window[0].partition_key} to {window[-1].partition_key}",
        error=error.value,
        by_chance=chance.value if chance else None,
        bins=tuple(ReliabilityLine(int(each.rows), each.score, each.outcome) for each in bins),
    )
