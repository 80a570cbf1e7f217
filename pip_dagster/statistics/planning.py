"""How many labels a gate will need, computed from both models' scores before any label has arrived."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pip_dagster.statistics.influence import Metric, scarce_outcomes
from pip_dagster.statistics.interval import PairedRows, gain
from pip_dagster.statistics.judge import LEAST_UNITS, Rule, labels_needed, margin

if TYPE_CHECKING:
    import numpy as np

_DRAWS = 5
# The variance of a unit's rate of events around its score, relative to the score's square.
_DISPERSION = 0.1
_STREAM = 1979  # its own stream of random numbers: none of a caller's with the same seed


@dataclass(frozen=True)
class LabelNeed:
    """How many labelled rows the declared rule needs (`rows`) and how many units.

    `se` is the standard error that the gain would have if every row had its label, and `margin` the loss allowed.
    """

    rows: int
    units: int
    se: float
    margin: float


def labels_needed_before(
    metric: Metric,
    rows: PairedRows,
    rule: Rule | None = None,
    *,
    noise: float | None = None,
    shared: float = 0.5,
    seed: int = 0,
) -> LabelNeed | None:
    """Draw outcomes from the champion's scores and measure the interval that they would give.

    Outcomes are Bernoulli, Poisson or one class of the row's probabilities; for `rmse` normal around the score with a
    standard deviation of `noise`. The champion must be roughly calibrated. Rows of one unit share their luck by a
    Gaussian copula; luck that a day shares is not drawn. Rows of one unit share the rate of a count, and not the
    count's own Poisson noise, which is most of its luck where counts are small. Five sets are drawn, and the variances
    and margins averaged.
    docs/gate-statistics.md has the predicted standard errors against actual ones.

    Args:
        metric: any but `mean`.
        rows: replayed rows of both models; `y` is ignored.
        rule: the defaults of `Rule` when None.
        noise: for `rmse`, the champion's error at training.
        shared: the share of the luck that the rows of a unit have in common, from 0 to 1. It cannot be known before
            labels exist, and it only matters where units recur.
        seed: of the draws.

    Returns:
        None where outcomes cannot be drawn: no rows, scores that are neither probabilities nor means, `rmse` without
        `noise`, or a metric that has no value on any drawn set.

    Raises:
        DeclarationError: scores that are not finite or that the metric is not for.
    """
    import numpy as np

    rule = rule or Rule()
    rng = np.random.default_rng((_STREAM, seed))
    variances, margins, needs = [], [], []
    unit = np.unique(rows.unit, return_inverse=True)[1]
    units = int(unit.max()) + 1 if len(unit) else 0
    share: np.ndarray | float = shared
    if metric == "poisson_deviance":
        dispersed = _DISPERSION * np.maximum(np.asarray(rows.champion, np.float64), 0)
        share = shared * dispersed / (1 + dispersed)
    for _ in range(_DRAWS):
        luck = share**0.5 * rng.normal(size=units)[unit] + (1 - share) ** 0.5 * rng.normal(size=len(rows))
        y = _draw(metric, np.asarray(rows.champion, np.float64), noise, luck)
        if y is None:
            return None
        drawn = replace(rows, y=y)
        found = gain(metric, drawn, rule.confidence)
        if found is None:
            continue
        allowed = margin(metric, y, found.champion, rule.max_loss).value
        outcomes, _ = scarce_outcomes(metric, y, rows.unit)
        need = labels_needed(found, allowed, outcomes, strict=rule.strict)
        if need is not None:
            needs.append(need)
            variances.append(found.se**2)
            margins.append(allowed)
    if not needs:
        return None
    return LabelNeed(math.ceil(np.mean(needs)), LEAST_UNITS, float(np.mean(variances)) ** 0.5, float(np.mean(margins)))


def _draw(metric: Metric, scores: np.ndarray, noise: float | None, luck: np.ndarray) -> np.ndarray | None:
    """Outcomes (rows,) that the champion's scores predict, by standard normal luck; None where they predict none."""
    import numpy as np
    from scipy.special import ndtr

    if not len(scores) or not np.isfinite(scores).all() or (metric != "rmse" and (scores < 0).any()):
        return None
    if metric == "rmse":
        return None if noise is None else np.asarray(scores + noise * luck)
    if metric == "poisson_deviance":
        from scipy.stats import poisson

        return np.asarray(poisson.ppf(ndtr(np.clip(luck, -8, 8)), scores))
    if (scores > 1).any():
        return None
    if scores.ndim == 1:
        return np.asarray(ndtr(luck) < scores, np.float64)
    total = np.cumsum(scores, axis=1)
    at = ndtr(luck)[:, None] * total[:, -1:]
    return np.asarray((at >= total[:, :-1]).sum(axis=1), np.int64)
