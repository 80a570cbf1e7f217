"""What the page of a comparison shows: two versions, or two arms, of a pipeline side by side."""

from __future__ import annotations

from dataclasses import dataclass, field

from pip_dagster.reporting.content import Distribution, Figure, GateLine, Named, Period, Provenance

SCHEMA = "pip_dagster.report.comparison/1"


@dataclass(frozen=True)
class ComparedSide:
    """One of the two: what it scored in the period, and what its model is."""

    name: str
    versions: tuple[int, ...]
    partitions: int
    live_partitions: int
    rows: int
    mean_score: Figure
    seconds: Figure
    model: tuple[Named, ...]


@dataclass(frozen=True)
class Pairing:
    """The same rows scored by both, B against A. `flips`: the share of rows that a decision changes for."""

    partitions: int
    rows: int
    mean_difference: Figure
    mean_absolute_difference: Figure
    largest_difference: Figure
    correlation: Figure
    flips: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PairDay:
    """A partition that both scored, or one of them."""

    partition: str
    rows_a: int | None
    rows_b: int | None
    mean_a: Figure
    mean_b: Figure


@dataclass(frozen=True)
class MetricPair:
    """A metric of both over their labelled rows of the period."""

    metric: str
    higher_is_better: bool
    value_a: Figure
    rows_a: int | None
    value_b: Figure
    rows_b: int | None


@dataclass(frozen=True)
class Comparison:
    """Two versions or arms over a period. `psi` is that of B's scores against A's, beyond noise."""

    schema: str
    pipeline: str
    origin: Provenance
    period: Period
    sentence: str
    sides: tuple[ComparedSide, ComparedSide]
    paired: Pairing | None = None
    scores: tuple[Distribution, ...] = ()
    psi: Figure = None
    days: tuple[PairDay, ...] = ()
    metrics: tuple[MetricPair, ...] = ()
    gates: tuple[GateLine, ...] = ()
    unavailable: dict[str, str] = field(default_factory=dict)
