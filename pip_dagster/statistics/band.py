"""The band of an estimate, and how estimates have held: hits, misses on one side, and what chance gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pip_dagster.statistics.expected import Expected
from pip_dagster.statistics.interval import t_quantile

CONFIDENCE = 0.95
# The trailing graded partitions that the hit rate is of; from how many on, and below which rate, it withdraws.
TRAILING, LEAST_GRADED, LEAST_HELD = 28, 10, 0.8
# A run: so many of the newest graded partitions missed on the same side.
RUN, RUN_OF = 4, 7
# Fewer rows than this have no estimate: the normal approximation does not hold.
LEAST_ROWS = 30

_Z = 1.959963984540054
_SHARES = ("base_rate", "auc", "accuracy", "macro_f1", "ovr_auc", "precision", "recall", "brier")


@dataclass(frozen=True)
class Band:
    """What a metric is estimated to be, and where it is measured with a probability of 95%."""

    value: float
    low: float
    high: float


def band(metric: str, of: Expected, spread: float, partitions: int) -> Band:
    """The band around an expectation.

    Args:
        metric: its name; a share stays between 0 and 1, and only a bias is below 0.
        of: the expectation, with the variance by chance of the outcomes and that of the calibrator.
        spread: the variance between partitions beyond chance, from those that the calibrator was fitted on.
        partitions: how many those are.
    """
    between = 0.0
    if spread and partitions > 1:
        # As in a prediction interval: the mean and the spread are known from so many partitions only.
        between = (
            spread * (partitions + 1) / (partitions - 1) * (t_quantile((1 + CONFIDENCE) / 2, partitions - 1) / _Z) ** 2
        )
    sd = math.sqrt(of.variance + of.from_fit + between)
    value, low, high = of.value, of.value - _Z * sd, of.value + _Z * sd
    if metric == "rmse":  # the expectation is of its square
        value, low, high = (math.sqrt(max(0.0, each)) for each in (value, low, high))
    if metric == "bias":
        return Band(value, low, high)
    return Band(value, max(0.0, low), min(1.0, high) if metric.split(".")[0] in _SHARES else high)


def spreads(
    estimated: Mapping[str, Mapping[str, Expected]], measured: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """Metric → the variance between partitions beyond what chance and the calibrator explain.

    Days have something in common that no feature shows, such as the weather. Without this variance a band would be too
    narrow for them.
    """
    beyond: dict[str, list[float]] = {}
    for key, of_partition in estimated.items():
        for metric, each in of_partition.items():
            truth = measured.get(key, {}).get(metric)
            if truth is not None:
                beyond.setdefault(metric, []).append((each.value - truth) ** 2 - each.variance)
    return {metric: max(0.0, sum(values) / len(values)) for metric, values in beyond.items()}


@dataclass(frozen=True)
class TrackRecord:
    """How an estimate has held: of the newest `graded` partitions, `held` measured within the band.

    `misses`: how many of the newest 7 were on the side of the newest miss, -1 below the band, 1 above; 0 if the newest
    held.
    """

    held: int
    graded: int
    misses: int
    side: int

    @property
    def withdrawn(self) -> bool:
        """Whether the estimate is no longer shown."""
        return self.graded >= LEAST_GRADED and self.held < LEAST_HELD * self.graded

    @property
    def runs(self) -> bool:
        """Whether misses are on one side by more than chance."""
        return self.side != 0 and self.misses >= RUN


def record(sides: Sequence[int]) -> TrackRecord:
    """From the graded partitions, oldest first: -1 measured below the band, 0 within, 1 above."""
    trailing, newest = sides[-TRAILING:], sides[-RUN_OF:]
    side = newest[-1] if newest else 0
    return TrackRecord(
        held=sum(each == 0 for each in trailing),
        graded=len(trailing),
        misses=sum(each == side for each in newest) if side else 0,
        side=side,
    )
