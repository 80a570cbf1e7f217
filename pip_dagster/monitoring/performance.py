"""Performance: how good scores were in windows of labelled partitions, and whether they are worse than they were."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.errors import NoWarehouseError, RegistryError
from pip_dagster.ledger.arms import CHAMPION
from pip_dagster.ledger.lost_rows import lost_rows
from pip_dagster.ledger.performance import PerformanceRow, live_parts, newest_evaluations, performance_rows
from pip_dagster.monitoring.coverage import Coverage, coverages
from pip_dagster.monitoring.finding import Finding, FindingState
from pip_dagster.plural import plural
from pip_dagster.registry.store import Registry
from pip_dagster.statistics.distribution import adjusted
from pip_dagster.statistics.loss import Loss, loss_against, loss_against_held_out, within_bounds
from pip_dagster.statistics.metrics.spec import default_metric
from pip_dagster.statistics.metrics.sums import MetricSums, Stack
from pip_dagster.statistics.metrics.windows import intervals
from pip_dagster.warehouse.access import reading

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.manifest import Manifest

WINDOWS = (1, 7, 28)
_WEEK, _MONTH = 7, 28
# All rows, by two rules, and the segments together each have half of the probability of a false alarm.
_HALVES, _RULES = 2, 2

Segment = tuple[str | None, str | None]
_ALL: Segment = (None, None)


@dataclass(frozen=True)
class WindowFigure:
    """A figure over the newest `partitions` that count, with its 95% interval where there is one."""

    partitions: int
    first: str
    last: str
    arm: str
    version: int
    segment: str | None
    segment_value: str | None
    metric: str
    value: float | None
    low: float | None
    high: float | None
    rows: int
    labelled: int
    reason: str = ""


@dataclass(frozen=True)
class Performance:
    """What is known of the live partitions, oldest first, and the rows of those evaluations that were read.

    `manifest`: of the version that scored the newest partition that counts. It may not be the newest version.
    """

    metric: str
    partitions: tuple[Coverage, ...]
    rows: dict[str, list[PerformanceRow]]
    manifest: Manifest | None

    def counting(self, arm: str = CHAMPION) -> list[Coverage]:
        """The partitions whose figures count and were read, oldest first."""
        return [
            each
            for each in self.partitions
            if each.state == "mature"
            and each.part.arm == arm
            and each.evaluation
            and each.evaluation.evaluation_id in self.rows
        ]

    def sums(self, of: Sequence[Coverage], segment: Segment = _ALL) -> list[MetricSums]:
        """The sums of these partitions that have labelled rows of a segment."""
        return [MetricSums.from_text(row.sums) for row in self._rows(of, segment) if row.sums]

    def segments(self, of: Sequence[Coverage]) -> list[Segment]:
        """The segments and values that any of these partitions has."""
        found = {(row.segment, row.segment_value) for each in of for row in self.rows[_id(each)] if row.segment}
        return sorted(found, key=lambda each: (each[0] or "", each[1] or ""))

    def window(self, of: Sequence[Coverage], segment: Segment = _ALL) -> WindowFigure | None:
        """The figure of these partitions together; None without any."""
        rows = self._rows(of, segment)
        if not rows or not of:
            return None
        total = sum(row.rows for row in rows), sum(row.labelled for row in rows)
        newest = of[-1].part
        place = (len(of), of[0].partition_key, newest.live.key, newest.arm, newest.model_version, *segment, self.metric)
        if len(of) == 1:
            row = rows[0]
            if self.metric not in row.metrics:
                return WindowFigure(*place, None, None, None, *total)
            i = row.metrics.index(self.metric)
            return WindowFigure(*place, row.figures[i], row.lows[i], row.highs[i], *total)
        sums = [MetricSums.from_text(row.sums) for row in rows if row.sums]
        try:
            stack = Stack.of(sums) if sums else None
        except ValueError:  # models of different kinds
            stack = None
        if stack is None:
            return WindowFigure(*place, None, None, None, *total)
        found = stack.metrics()[0].get(self.metric)
        ends = intervals(stack).get(self.metric)
        low, high = within_bounds(self.metric, *ends) if ends else (None, None)
        if found is None:
            return WindowFigure(*place, None, None, None, *total)
        return WindowFigure(*place, found.value, low, high, *total, found.reason)

    def _rows(self, of: Sequence[Coverage], segment: Segment) -> list[PerformanceRow]:
        return [row for each in of for row in self.rows[_id(each)] if (row.segment, row.segment_value) == segment]


def read_performance(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    *,
    last: int = 3 * _MONTH,
    also: Collection[str] = (),
    partition: str | None = None,
    now: datetime | None = None,
) -> Performance:
    """The live partitions with the state of their labels, and the figures of the newest `last` that have any.

    Args:
        con: a workspace without the warehouse open.
        pipeline: declares labels.
        last: of how many labelled partitions figures are read.
        also: partitions whose figures are read too.
        partition: is the newest; later ones are as if they were not there.
        now: the instant that decides which figures count.
    """
    name, labels = pipeline.spec.name, pipeline.labels
    assert labels
    try:
        with reading(con, pipeline.project, purpose=f"{name}: reading performance"):
            parts = live_parts(con, name, purged=True)
            if partition is not None:
                until = max((part.live.start for part in parts if part.live.key == partition), default=None)
                parts = [part for part in parts if until is not None and part.live.start <= until]
            found = coverages(parts, newest_evaluations(con, name), labels, now or clock.wall(), lost_rows(con, name))
            labelled = [each for each in found if each.labelled]
            starts = sorted({each.part.live.start for each in labelled})[-last:]
            wanted = [_id(each) for each in labelled if each.part.live.start >= starts[0] or each.partition_key in also]
            rows: dict[str, list[PerformanceRow]] = {}
            for row in performance_rows(con, name, wanted) if wanted else ():
                rows.setdefault(row.evaluation_id, []).append(row)
    except NoWarehouseError:
        return Performance(_declared(pipeline) or "", (), {}, None)
    of_champion = [each for each in labelled if each.part.arm == CHAMPION]
    newest = next(reversed(of_champion or labelled), None)  # labels may have come for another arm alone
    metric = _declared(pipeline)
    if not metric and newest:
        sums = next((row.sums for row in rows.get(_id(newest), ()) if row.sums), "")
        metric = default_metric(Stack.of([MetricSums.from_text(sums)]).spec) if sums else ""
    return with_manifest(pipeline, Performance(metric or "", tuple(found), rows, None))


def with_manifest(pipeline: Pipeline, of: Performance) -> Performance:
    """The same with its manifest; without, where no partition counts or the version is no longer there."""
    if not (counting := of.counting()):
        return of
    scored = counting[-1].part
    try:
        version = Registry(pipeline.project.registry).get(scored.model_name, scored.model_version)
    except RegistryError:  # the figures are stored, whatever happened to the version since
        return of
    return replace(of, manifest=version.manifest)


def performance_findings(
    con: DuckDBPyConnection, pipeline: Pipeline, *, now: datetime | None = None, partition: str | None = None
) -> list[Finding]:
    """The verdicts on the newest partitions that count; none where labels or monitoring are not declared."""
    rules = pipeline.spec.monitoring
    if not pipeline.evaluates or rules is None:
        return []
    return judge_performance(pipeline.spec.name, read_performance(con, pipeline, now=now, partition=partition), rules)


def judge_performance(pipeline: str, of: Performance, rules: Monitoring) -> list[Finding]:
    """All rows by both rules, each segment by the first, and the labels themselves.

    `trailing`: the newest 7 partitions that count against the 28 before them. `held_out`: the newest 28 that the newest
    version scored, against the figure of its held-out rows at registration.
    """
    if not of.partitions:
        return []
    counting, declared = of.counting(), rules.performance
    findings = [_labels(pipeline, of)]
    if not counting:
        return findings
    window, before = counting[-_WEEK:], counting[-_WEEK - _MONTH : -_WEEK]
    level = declared.false_alarms / _HALVES

    def trailing(segment: Segment) -> Loss:
        return loss_against(of.metric, of.sums(window, segment), of.sums(before, segment), declared.max_loss)

    place = (pipeline, of.metric, window)
    found = trailing(_ALL)
    findings.append(_finding(place, "trailing", _ALL, found, (found.p, level / _RULES)))
    version = counting[-1].part.model_version
    same = [each for each in counting if each.part.model_version == version][-_MONTH:]
    held_out = of.manifest.held_out if of.manifest else None
    if held_out:
        found = loss_against_held_out(of.metric, of.sums(same), held_out.metrics, held_out.rows, declared.max_loss)
        findings.append(_finding((pipeline, of.metric, same), "held_out", _ALL, found, (found.p, level / _RULES)))
    segments = of.segments(window)
    losses = [trailing(segment) for segment in segments]
    judged = [each.p for each in losses if each.p is not None]
    by_rank = iter(adjusted(judged).tolist() if judged else [])  # type: ignore[arg-type]
    for segment, each in zip(segments, losses, strict=True):
        p = next(by_rank) if each.p is not None else None
        findings.append(_finding(place, "trailing", segment, each, (p, level)))
    return findings


def _finding(
    place: tuple[str, str, Sequence[Coverage]],
    rule: str,
    segment: Segment,
    found: Loss,
    judged: tuple[float | None, float],
) -> Finding:
    pipeline, metric, window = place
    (p, level), newest = judged, window[-1]
    state: FindingState = "unjudged" if p is None else "alarm" if found.exceeds and p <= level else "ok"
    against = "at registration" if rule == "held_out" else "in the 28 partitions before"
    cause = found.reason
    if found.value is not None and found.reference is not None and not found.reason:
        cause = f"{metric} is {found.value:.4g}; it was {found.reference:.4g} {against}"
    if unlike := sum(each.unlike_rest for each in window):
        cause += f"; the labelled rows of {plural(unlike, 'partition')} are not like the rest"
    return Finding(
        event="performance",
        rule=rule,
        subject=metric if segment == _ALL else f"{metric} where {segment[0]} = {segment[1]!r}",
        partition_key=newest.partition_key,
        scoring_id=newest.part.live.scoring_id,
        partitions=len(window),
        state=state,
        value=found.value,
        threshold=found.limit,
        chance=level,
        rows=found.rows,
        cause=cause,
        command=f"pip-dagster performance {pipeline} {newest.partition_key}",
    )


def _labels(pipeline: str, of: Performance) -> Finding:
    """Whether labels come as they should: none overdue, and those that are there like the rest."""
    keys = [*dict.fromkeys(each.partition_key for each in of.partitions)][-_MONTH:]  # of which arms share some
    newest = [each for each in of.partitions if each.partition_key in keys]
    overdue = [*dict.fromkeys(each.partition_key for each in newest if each.state == "overdue")]
    unlike = {each.partition_key for each in newest if each.unlike_rest}
    causes = []
    if overdue:
        causes.append(f"labels of {plural(len(overdue), 'partition')} are overdue, {overdue[0]} first")
    if unlike:
        causes.append(f"the labelled rows of {plural(len(unlike), 'partition')} are not like the rest")
    last = next(each for each in newest if each.partition_key == keys[-1])  # the champion, where there is one
    return Finding(
        event="labels",  # of a newer partition than those that labels judge
        rule="labels",
        subject="labels",
        partition_key=last.partition_key,
        scoring_id=last.part.live.scoring_id,
        partitions=len(keys),
        state="warning" if causes else "ok",
        value=float(len(overdue)),
        threshold=0.0,
        chance=None,
        rows=sum(each.rows for each in newest),
        cause="; ".join(causes),
        command=f"pip-dagster performance {pipeline} --last {_MONTH}",
    )


def _declared(pipeline: Pipeline) -> str | None:
    return pipeline.spec.monitoring.performance.metric if pipeline.spec.monitoring else None


def _id(of: Coverage) -> str:
    return of.evaluation.evaluation_id if of.evaluation else ""
