"""How sure a figure is when rows of one unit, and rows of one day, are not independent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.statistics.influence import HIGHER_IS_BETTER, Metric, influence, scarce_outcomes

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class PairedRows:
    """Labelled rows with both models' scores.

    `y` (rows,) outcomes; `champion` and `candidate` (rows,) or (rows, classes) scores; `unit` and `day` (rows,) integer
    codes of 0 or more: whose rows they are, and from which partition.
    """

    y: np.ndarray
    champion: np.ndarray
    candidate: np.ndarray
    unit: np.ndarray
    day: np.ndarray

    def take(self, at: np.ndarray) -> PairedRows:
        """Return some of the rows, by position or by a mask."""
        return PairedRows(self.y[at], self.champion[at], self.candidate[at], self.unit[at], self.day[at])

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Spread:
    """The standard error of a mean over clustered rows.

    `row_se` is what it would be if the rows were independent. With fewer than two units it is infinite.
    """

    rows: int
    units: int
    days: int
    se: float
    df: float
    row_se: float

    @property
    def effective_rows(self) -> float:
        """How many independent rows would give the same standard error."""
        return self.rows * (self.row_se / self.se) ** 2 if self.se else float(self.rows)

    def half_width(self, confidence: float) -> float:
        """Half of the two-sided interval: the t quantile times the standard error."""
        return t_quantile((1 + confidence) / 2, self.df) * self.se


@dataclass(frozen=True)
class Gain:
    """Both models' metric on the same rows, and their difference with its interval.

    `gain`, `low` and `high` are positive where the candidate is better, whatever the metric.
    """

    metric: Metric
    champion: float
    candidate: float
    gain: float
    low: float
    high: float
    spread: Spread

    @property
    def rows(self) -> int:
        """How many labelled rows there are."""
        return self.spread.rows

    @property
    def se(self) -> float:
        """The standard error of `gain`."""
        return self.spread.se


def spread(psi: np.ndarray, unit: np.ndarray, day: np.ndarray, informative: float | None = None) -> Spread:
    """Estimate the standard error of the mean of `psi` with clusters by unit and by day.

    The variance is that by unit plus the excess of that by day over that by cell (unit and day), never negative:
    Cameron, Gelbach and Miller 2011. Each is the sum of squared cluster sums over rows², times G / (G - 1).

    The degrees of freedom are Satterthwaite's (1946), V² / (V_unit² / (G - 1) + excess · V_day / (D - 1)). The excess
    is a difference that varies as much as V_day does. With excess² in its place, intervals of seven days covered 92%;
    with V_day², they were 15% too wide where days do not matter.

    With one day, differences between days are not in it.

    Args:
        psi: (rows,) influences, in the figure's unit.
        unit: (rows,) integer codes of 0 or more.
        day: (rows,) integer codes of 0 or more.
        informative: how many units limit the degrees of freedom; all units when None.
    """
    import numpy as np

    if not len(psi):
        return Spread(0, 0, 0, float("inf"), 1.0, float("inf"))
    unit, day = np.asarray(unit, np.int64), np.asarray(day, np.int64)
    by_unit, units = _clustered(psi, unit)
    by_day, days = _clustered(psi, day)
    by_cell, _ = _clustered(psi, unit * (int(day.max()) + 1) + day)
    n = len(psi)
    row_se = float(psi @ psi / n / max(n - 1, 1)) ** 0.5
    if units < 2:
        return Spread(n, units, days, float("inf"), 1.0, row_se)
    excess = max(by_day - by_cell, 0.0)
    variance = by_unit + excess
    g = units if informative is None else informative
    parts = by_unit**2 / max(g - 1, 1) + excess * by_day / max(days - 1, 1)
    df = variance**2 / parts if parts else float(max(g - 1, 1))
    return Spread(n, units, days, variance**0.5, df, row_se)


def gain(metric: Metric, rows: PairedRows, confidence: float = 0.95) -> Gain | None:
    """Compare two models on the same rows.

    The influence of a row on the difference is the difference of its influences. For `auc`, `ovr_auc` and `macro_f1`
    the units that limit the degrees of freedom are those with a row of the rarest class.

    Args:
        metric: any but `mean`; its unit is that of `gain`.
        rows: labelled rows of both models.
        confidence: of the interval, between 0 and 1.

    Returns:
        None where the metric has no value: no rows, or for `auc` and `ovr_auc` rows of one class only.

    Raises:
        DeclarationError: outcomes or scores that are not finite or that the metric is not for.
    """
    old, new = (influence(metric, rows.y, scores) for scores in (rows.champion, rows.candidate))
    if old is None or new is None:
        return None
    sign = 1.0 if metric in HIGHER_IS_BETTER else -1.0
    found = spread(sign * (new.psi - old.psi), rows.unit, rows.day, scarce_outcomes(metric, rows.y, rows.unit)[1])
    value, half = sign * (new.value - old.value), found.half_width(confidence)
    return Gain(metric, old.value, new.value, value, value - half, value + half, found)


def t_quantile(probability: float, df: float) -> float:
    """Return the quantile of Student's t with `df` degrees of freedom, which need not be whole."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def t_below(t: float, df: float) -> float:
    """Return the probability that Student's t with `df` degrees of freedom is below `t`."""
    from scipy.special import stdtr

    return float(stdtr(df, t))


def _clustered(psi: np.ndarray, codes: np.ndarray) -> tuple[float, int]:
    """The variance of the mean of `psi` when clusters are independent, and how many there are."""
    import numpy as np

    sums = np.bincount(np.unique(codes, return_inverse=True)[1], weights=psi)
    count = len(sums)
    return (float(sums @ sums) / len(psi) ** 2 * count / (count - 1), count) if count > 1 else (0.0, count)
