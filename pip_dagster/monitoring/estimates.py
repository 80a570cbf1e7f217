"""Estimates as they are shown and judged: beside each its record, hidden where it fails, an alarm where misses run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.ledger.estimates import GradedEstimate, graded_estimates, live_scorings
from pip_dagster.ledger.lost_rows import lost_rows
from pip_dagster.monitoring.estimating import applies, estimate_scored
from pip_dagster.monitoring.finding import Finding
from pip_dagster.registry.metric_spec import metric_spec
from pip_dagster.statistics.band import CONFIDENCE, RUN, RUN_OF, TRAILING, TrackRecord, record
from pip_dagster.statistics.loss import LEAST_REFERENCE, limit_of
from pip_dagster.statistics.metrics.spec import MetricValue, default_metric
from pip_dagster.warehouse.access import reading

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion

# What every figure means; no wording claims more.
MEANING = "expected if the outcome still follows the features as before"
NO_LONGER = "the outcome no longer follows the features as before"
# Simulated: partitions of an unchanged pipeline on which some metric has such a run. See docs/estimates.md.
RUN_BY_CHANCE = 0.007


@dataclass(frozen=True)
class ShownEstimate:
    """A metric's estimate for one partition; without a metric, the reason why there is none.

    Attributes:
        truth: What labels showed; None while they do not count. `hit`: whether it is within the band.
        record: How estimates of this metric held, with the newest labels.
        withdrawn: Whether the figures must not be shown, because too few such estimates held.
        text: What to show, in words.
    """

    partition_key: str
    scoring_id: str
    rows: int
    metric: str
    value: float | None
    low: float | None
    high: float | None
    truth: float | None
    hit: bool | None
    record: TrackRecord
    withdrawn: bool
    text: str


def read_estimates(
    con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, *, last: int | None = None
) -> list[ShownEstimate]:
    """The estimates of the live partitions of a version, oldest first; of the newest `last` partitions.

    `con` is a workspace without the warehouse.
    """
    found = graded(con, pipeline, version)
    keys = list(dict.fromkeys(each.partition_key for each in found))
    return shown_of(found, {*(keys if last is None else keys[-last:])})


def graded(con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion) -> list[GradedEstimate]:
    """The same with what labels showed, for `shown_of` and `findings_of`."""
    with reading(con, pipeline.project, purpose=f"{pipeline.spec.name}: reading estimates"):
        return graded_estimates(con, pipeline.spec.name, version.manifest_digest, now=clock.wall())


def shown_of(found: Sequence[GradedEstimate], keys: Collection[str]) -> list[ShownEstimate]:
    """Of all estimates of a version, those of these partitions in words."""
    records = records_of(found)
    return [_shown(each, records.get(each.metric, record([]))) for each in found if each.partition_key in keys]


def records_of(found: Sequence[GradedEstimate]) -> dict[str, TrackRecord]:
    """Metric → how its estimates held; `found` is in the partitions' order."""
    sides: dict[str, list[int]] = {}
    for each in found:
        if each.metric:
            sides.setdefault(each.metric, [])
            if each.side is not None:
                sides[each.metric].append(each.side)
    return {metric: record(of_metric) for metric, of_metric in sides.items()}


def estimates_after_scoring(
    con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, partitions: Sequence[str]
) -> list[Finding]:
    """Estimate partitions that were just scored, unless that was done, and judge the estimates that labels graded.

    Those that lost rows to an erasure, and their estimates with them, are estimated again.

    `con` is a workspace without the warehouse.
    """
    if not applies(pipeline):
        return []
    with reading(con, pipeline.project, purpose=f"{pipeline.spec.name}: reading the ledger"):
        lost = lost_rows(con, pipeline.spec.name)
        live = live_scorings(con, pipeline.spec.name, version.manifest_digest) if lost else []
    again = [each.partition_key for each in live if each.scoring_id in lost]
    estimate_scored(con, pipeline, version, [*partitions, *again])
    return estimate_findings(con, pipeline, version)


def estimate_findings(
    con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, partitions: Sequence[str] = ()
) -> list[Finding]:
    """A finding for each metric, misses that run on one side, and one of what is expected of the newest partition.

    `partitions` is not needed: the newest one counts.

    `con` is a workspace without the warehouse.
    """
    return findings_of(pipeline, version, graded(con, pipeline, version))


def findings_of(pipeline: Pipeline, version: ModelVersion, found: Sequence[GradedEstimate]) -> list[Finding]:
    """The same of all estimates of a version."""
    findings = []
    for metric, of_metric in records_of(found).items():
        listed = [each for each in found if each.metric == metric]
        known = [each for each in listed if each.side is not None]
        newest = (known or listed)[-1]
        findings.append(
            Finding(
                event="estimate",
                rule="one_sided",
                subject=metric,
                partition_key=newest.partition_key,
                scoring_id=newest.scoring_id,
                partitions=min(len(known), RUN_OF),
                state="unjudged" if len(known) < RUN_OF else "alarm" if of_metric.runs else "ok",
                value=float(of_metric.misses),
                threshold=float(RUN),
                chance=RUN_BY_CHANCE,
                rows=sum(each.rows for each in known[-RUN_OF:]),
                cause=_cause(newest, of_metric) if of_metric.runs else "",
                command=f"pip-dagster estimate {pipeline.spec.name} --last {RUN_OF}",
            )
        )
    return [*findings, *_expected(pipeline, version, found)]


def _expected(pipeline: Pipeline, version: ModelVersion, found: Sequence[GradedEstimate]) -> list[Finding]:
    """Whether the newest estimate of the judged metric lies beyond the loss that is allowed, with its whole band.

    An estimate is no measurement: it is a warning. Its reference is the median of the newest 28 partitions that labels
    graded, where there are 14; else the held-out rows of the registration.
    """
    spec, rules = metric_spec(version.manifest), pipeline.spec.monitoring or Monitoring()
    metric = rules.performance.metric or (default_metric(spec) if spec else "")
    listed = [each for each in found if each.metric == metric]
    if not metric or not listed:
        return []
    newest = listed[-1]
    reference, of_what = _reference(version, [each for each in found if each is not newest], metric)
    limit = limit_of(metric, reference, rules.performance.max_loss)
    withdrawn = records_of(listed)[metric].withdrawn
    is_known = limit is not None and newest.value is not None and not withdrawn
    best = None if limit is None else newest.high if limit[1] > 0 else newest.low
    beyond = is_known and limit is not None and best is not None and (limit[0] - best) * limit[1] > 0
    cause = f"{metric} {_band(newest)} is expected, {of_what} {reference[metric].value:.4g}" if beyond else ""
    return [
        Finding(
            event="estimate",
            rule="expected",
            subject=metric,
            partition_key=newest.partition_key,
            scoring_id=newest.scoring_id,
            partitions=1,
            state="warning" if beyond else "ok" if is_known else "unjudged",
            value=None if withdrawn else newest.value,
            threshold=limit[0] if limit else None,
            chance=(1 - CONFIDENCE) / 2,
            rows=newest.rows,
            cause=cause,
            command=f"pip-dagster estimate {pipeline.spec.name} --last {RUN_OF}",
        )
    ]


def _reference(
    version: ModelVersion, found: Sequence[GradedEstimate], metric: str
) -> tuple[dict[str, MetricValue], str]:
    truths: dict[str, list[float]] = {}
    for each in found:
        if each.truth is not None:
            truths.setdefault(each.metric, []).append(each.truth)
    if len(truths.get(metric, ())) >= LEAST_REFERENCE:
        medians = {name: MetricValue(median(of[-TRAILING:]), 0) for name, of in truths.items()}
        return medians, "and the median measured before is"
    held_out = version.manifest.held_out
    known = {name: MetricValue(value, held_out.rows) for name, value in held_out.metrics.items()} if held_out else {}
    return known, "and held-out rows had"


def _band(each: GradedEstimate) -> str:
    return f"{each.low:.4g} to {each.high:.4g}"


def _cause(newest: GradedEstimate, of_metric: TrackRecord) -> str:
    side = "above" if of_metric.side > 0 else "below"
    return (
        f"{NO_LONGER}: {newest.metric} was {side} its estimate on {of_metric.misses} of {RUN_OF} partitions, last "
        f"{newest.truth:.4g} for {newest.low:.4g} to {newest.high:.4g}"
    )


def _shown(each: GradedEstimate, of_metric: TrackRecord) -> ShownEstimate:
    withdrawn = bool(each.metric) and of_metric.withdrawn
    if each.value is None:
        text = f"no estimate: {each.reason}"
    elif withdrawn:
        text = f"withdrawn: {of_metric.held} of {of_metric.graded} estimates held"
    else:
        held = f"{of_metric.held} of {of_metric.graded} such estimates held" if of_metric.graded else "none graded yet"
        text = f"{each.value:.4g} ({each.low:.4g} to {each.high:.4g}) {MEANING}; {held}"
        text += "; by the held-out rows of its registration" if each.calibrator == "held out" else ""
    return ShownEstimate(
        *(each.partition_key, each.scoring_id, each.rows, each.metric, each.value, each.low, each.high),
        *(each.truth, each.hit, of_metric, withdrawn, text),
    )
