"""What a metric was expected to be before its labels came: shown with its record, hidden where it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pip_dagster.ledger.estimates import GradedEstimate, graded_estimates
from pip_dagster.monitoring.estimates import records_of
from pip_dagster.reporting.content import MetricSeries, Point

if TYPE_CHECKING:
    from datetime import datetime

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion
    from pip_dagster.reporting.source import OpenLedger


def read_expected(
    source: OpenLedger, pipeline: Pipeline, version: ModelVersion | None, as_of: datetime | None
) -> list[GradedEstimate]:
    """The estimates of the live partitions of a version, graded by the labels that count at the ledger's time."""
    if version is None or as_of is None or not source.has("ledger", "graded_estimates"):
        return []
    return graded_estimates(source.con, pipeline.spec.name, version.manifest_digest, now=as_of)


def why_no_estimates(found: Sequence[GradedEstimate]) -> str | None:
    """The newest reason, where nothing could be estimated; None where something was."""
    if any(each.value is not None for each in found):
        return None
    return found[-1].reason or "nothing was estimated" if found else "nothing was estimated yet"


def with_estimates(series: Sequence[MetricSeries], found: Sequence[GradedEstimate]) -> tuple[MetricSeries, ...]:
    """The metrics with their estimates; those that were withdrawn are left out, with the reason."""
    records = records_of(found)
    by_metric: dict[str, dict[str, GradedEstimate]] = {}
    for each in found:
        by_metric.setdefault(each.metric, {})[each.partition_key] = each
    result = []
    for of in series:
        record, estimates = records.get(of.metric), by_metric.get(of.metric, {})
        if record is None:
            result.append(of)
            continue
        held = record.held / record.graded if record.graded else None
        if record.withdrawn:
            hidden = f"{record.held} of {record.graded} estimates of {of.metric} held"
            result.append(replace(of, hit_rate=held, estimates_hidden=hidden))
            continue
        points = tuple(_expected(point, estimates.get(point.partition)) for point in of.points)
        result.append(replace(of, points=points, hit_rate=held))
    return tuple(result)


def _expected(point: Point, found: GradedEstimate | None) -> Point:
    if found is None:
        return point
    return replace(point, estimate=found.value, estimate_low=found.low, estimate_high=found.high, hit=found.hit)
