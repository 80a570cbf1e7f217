"""A figure of one arm of an experiment, and the difference of two arms, whose rows and units are not the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pip_dagster.statistics.influence import Influence, Metric, influence, scarce_outcomes
from pip_dagster.statistics.interval import Spread, spread

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class ArmRows:
    """Labelled rows of one arm.

    `y` (rows,) outcomes; `scores` (rows,) or (rows, classes); `unit` and `day` (rows,) integer codes of 0 or more, of
    which `day` means the same in every arm.
    """

    y: np.ndarray
    scores: np.ndarray
    unit: np.ndarray
    day: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval, in the metric's unit."""

    value: float
    low: float
    high: float
    spread: Spread


def estimate(metric: Metric, rows: ArmRows, confidence: float = 0.95) -> Estimate | None:
    """Measure a metric on one arm's rows, with an interval by unit and day (`interval.spread`).

    Args:
        metric: any; `mean` is the mean of the outcomes.
        rows: of the arm.
        confidence: between 0 and 1.

    Returns:
        None where the metric has no value: no rows, or for `auc` and `ovr_auc` rows of one class only.

    Raises:
        DeclarationError: outcomes or scores that are not finite or that the metric is not for.
    """
    found = _measure(metric, rows)
    return _interval(found[0].value, found[1], confidence) if found else None


def arm_difference(metric: Metric, base: ArmRows, arm: ArmRows, confidence: float = 0.95) -> Estimate | None:
    """Measure by how much an arm's metric is above the base's; the arms have no unit in common.

    The influence of a row is its influence on its own arm's figure, weighted by all rows over the arm's, and negative
    in the base. Days are the same in both, so that luck that both arms share cancels. The degrees of freedom of the
    part by unit are Welch's (1947).

    Args:
        metric: any; `mean` is the mean of the outcomes.
        base: rows of the arm compared with.
        arm: rows of the arm.
        confidence: between 0 and 1.

    Returns:
        None where the metric has no value in one of them. With one unit in an arm the interval is infinite.

    Raises:
        DeclarationError: outcomes or scores that are not finite or that the metric is not for.
    """
    import numpy as np

    measured = [_measure(metric, rows) for rows in (base, arm)]
    if measured[0] is None or measured[1] is None:
        return None
    (old, old_spread), (new, new_spread) = measured[0], measured[1]
    n = len(old.psi) + len(new.psi)
    psi = np.concatenate([-old.psi * (n / len(old.psi)), new.psi * (n / len(new.psi))])
    unit = np.concatenate([base.unit, arm.unit + int(base.unit.max()) + 1])
    day = np.concatenate([base.day, arm.day])
    if float("inf") in (old_spread.se, new_spread.se):
        found = replace(spread(psi, unit, day), se=float("inf"), df=1.0)
    else:
        parts = old_spread.se**4 / old_spread.df + new_spread.se**4 / new_spread.df
        welch = (old_spread.se**2 + new_spread.se**2) ** 2 / parts if parts else float(n - 2)
        found = spread(psi, unit, day, welch + 1)
    return _interval(new.value - old.value, found, confidence)


def _measure(metric: Metric, rows: ArmRows) -> tuple[Influence, Spread] | None:
    found = influence(metric, rows.y, rows.scores)
    if found is None:
        return None
    return found, spread(found.psi, rows.unit, rows.day, scarce_outcomes(metric, rows.y, rows.unit)[1])


def _interval(value: float, found: Spread, confidence: float) -> Estimate:
    half = found.half_width(confidence)
    return Estimate(value, value - half, value + half, found)
