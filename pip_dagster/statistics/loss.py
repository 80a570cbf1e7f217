"""Whether a metric is worse than a reference by more than chance, where the rows of a partition share what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.statistics.interval import t_below, t_quantile
from pip_dagster.statistics.metrics.spec import HIGHER_IS_BETTER, MetricValue, metric_base
from pip_dagster.statistics.metrics.sums import MetricSums, Stack

if TYPE_CHECKING:
    import numpy as np

# With fewer partitions the spread between them is hardly known.
LEAST_WINDOW, LEAST_REFERENCE = 7, 14
# Rows that a side needs, of the scarcer outcome where there are two. With 20, chance was found too often.
LEAST_ROWS = 40


# Partitions differ in what they tell, so that a variance between them is less sure than that of as many normal values:
# with all degrees of freedom, chance in segments was found 2.5 times as often as stated.
_DF_SHARE = 0.5
_NOT_NEGATIVE = frozenset(
    {"logloss", "multi_logloss", "brier", "rmse", "mae", "pinball", "poisson_deviance", "tweedie_deviance"}
)


@dataclass(frozen=True)
class Loss:
    """A window's figure against its reference's.

    `loss` is positive where the window is worse, `allowed` is the loss that may be, and `limit` the figure there.
    `p` is the probability of such a loss or a larger one if nothing changed; None with a `reason` where it cannot be
    judged. `low` and `high` are the 95% interval of `value`.
    """

    value: float | None
    reference: float | None
    rows: int
    loss: float = 0.0
    allowed: float = 0.0
    limit: float | None = None
    p: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    @property
    def exceeds(self) -> bool:
        """Whether the loss is larger than is allowed."""
        return self.p is not None and self.loss > self.allowed


@dataclass(frozen=True)
class _Side:
    """Partitions together: the figure, the variance of one partition's figure about it, and rows a partition."""

    of: MetricValue
    count: int
    variance: float
    rows: float
    all: Mapping[str, MetricValue]

    @property
    def error(self) -> float:
        return float(self.variance / self.count)


def loss_against(metric: str, window: Sequence[MetricSums], before: Sequence[MetricSums], max_loss: float) -> Loss:
    """Compare a window of partitions with the partitions before it.

    Each side's figure is that of its summed statistics. Leaving out one partition at a time gives the variance between
    partitions (the delete-a-group jackknife), which is pooled over both sides: Student's t with half the degrees of
    freedom of both. A window whose partitions have fewer rows is given as much more variance.
    """
    sides = _sides(metric, [window, before])
    if isinstance(sides, Loss):
        return sides
    new, old = sides
    if new.count < LEAST_WINDOW or old.count < LEAST_REFERENCE:
        return Loss(new.of.value, old.of.value, round(new.rows * new.count), reason="too few labelled partitions")
    df = new.count + old.count - 2
    pooled = (new.variance * (new.count - 1) + old.variance * (old.count - 1)) / df
    fewer = max(1.0, old.rows / max(new.rows, 1.0))
    variance = pooled * (fewer / new.count + 1 / old.count)
    return _judged(metric, new, (old.of.value or 0.0, old.all), variance, df, max_loss)


def loss_against_held_out(
    metric: str, window: Sequence[MetricSums], held_out: Mapping[str, float], held_out_rows: int, max_loss: float
) -> Loss:
    """Compare a window with the figures of the held-out rows, which count as so many partitions as their rows make."""
    sides = _sides(metric, [window])
    if isinstance(sides, Loss):
        return sides
    (new,) = sides
    if metric not in held_out or new.count < LEAST_WINDOW:
        reason = "too few labelled partitions" if metric in held_out else "no held-out figure at registration"
        return Loss(new.of.value, held_out.get(metric), round(new.rows * new.count), reason=reason)
    variance = new.variance * (1 / new.count + new.rows / max(held_out_rows, 1))
    known = {name: MetricValue(value, held_out_rows) for name, value in held_out.items()}
    return _judged(metric, new, (held_out[metric], known), variance, new.count - 1, max_loss)


def within_bounds(metric: str, low: float, high: float) -> tuple[float, float]:
    """An interval cut off where the metric ends: a share or an area is between 0 and 1, a loss is not negative."""
    name = metric_base(metric)
    if name in HIGHER_IS_BETTER - {"r2", "gini"}:
        return max(low, 0.0), min(high, 1.0)
    return (max(low, 0.0), high) if name in _NOT_NEGATIVE else (low, high)


def chance_level(metric: str, figures: Mapping[str, MetricValue]) -> float | None:
    """The figure of scores that know only how frequent the outcome is; None for a metric that has none here."""
    from math import log

    name, rate = metric_base(metric), figures.get("base_rate")
    if name in ("auc", "ovr_auc", "concordance"):
        return 0.5
    if name == "gini":
        return 0.0
    if rate is None or rate.value is None or not 0 < rate.value < 1:
        return None
    p = rate.value
    known = {"average_precision": p, "logloss": -(p * log(p) + (1 - p) * log(1 - p)), "brier": p * (1 - p)}
    return known.get(name)


def limit_of(metric: str, reference: Mapping[str, MetricValue], max_loss: float) -> tuple[float, int] | None:
    """The figure at which the loss is `max_loss`, and whether better is higher (1) or lower (-1); None without one."""
    against = reference.get(metric)
    if against is None or against.value is None or metric_base(metric) not in HIGHER_IS_BETTER | _NOT_NEGATIVE:
        return None
    sign, chance = 1 if metric_base(metric) in HIGHER_IS_BETTER else -1, chance_level(metric, reference)
    return against.value - sign * max_loss * abs(against.value - (0.0 if chance is None else chance)), sign


def _judged(
    metric: str,
    new: _Side,
    reference: tuple[float, Mapping[str, MetricValue]],
    variance: float,
    df: float,
    max_loss: float,
) -> Loss:
    value, (against, figures) = new.of.value or 0.0, reference
    sign = 1.0 if metric_base(metric) in HIGHER_IS_BETTER else -1.0
    loss = sign * (against - value)
    chance = chance_level(metric, figures)
    allowed = max_loss * abs(against - chance if chance is not None else against)
    se = variance**0.5
    p = 1 - t_below(loss / se, df * _DF_SHARE) if se else float(loss <= 0)
    half = t_quantile(0.975, new.count - 1) * new.error**0.5
    rows, limit = round(new.rows * new.count), against - sign * allowed
    return Loss(value, against, rows, loss, allowed, limit, p, value - half, value + half)


def _sides(metric: str, groups: Sequence[Sequence[MetricSums]]) -> list[_Side] | Loss:
    """The sides with their variances, all from one stack; a `Loss` with the reason where one has no figure."""
    import numpy as np

    labelled = [[each for each in group if each.rows] for group in groups]
    if not all(labelled):
        return Loss(None, None, 0, reason="too few labelled partitions" if any(labelled) else "no labelled partition")
    try:
        stack = Stack.of([each for group in labelled for each in group])
    except ValueError:
        return Loss(None, None, 0, reason="the partitions were scored by models of different kinds")
    found: list[_Side] = []
    start = 0
    for group in labelled:
        count = len(group)
        weights = np.zeros((count + 1, len(stack)))
        weights[:, start : start + count] = 1
        weights[np.arange(1, count + 1), np.arange(start, start + count)] = 0
        start += count
        whole = stack.metrics(weights[:1])[0]
        of = whole.get(metric, MetricValue(None, 0, f"no figure {metric}"))
        rows = sum(each.rows for each in group) / count
        reason = of.reason or _too_few(whole, rows * count)
        if of.value is None or reason:
            return Loss(of.value, None, round(rows * count), reason=reason)
        without: np.ndarray = stack.figures(weights[1:])[0][metric].values
        if count > 1 and not np.isfinite(without).all():
            return Loss(of.value, None, round(rows * count), reason="one partition decides the figure")
        variance = (count - 1) * float(((without - without.mean()) ** 2).sum()) if count > 1 else 0.0
        found.append(_Side(of, count, variance, rows, whole))
    return found


def _too_few(figures: Mapping[str, MetricValue], rows: float) -> str:
    """Why the rows are too few to judge by; empty if they are enough."""
    rate = figures.get("base_rate")
    scarce = rows if rate is None or rate.value is None else rows * min(rate.value, 1 - rate.value)
    return "" if scarce >= LEAST_ROWS else f"fewer than {LEAST_ROWS} rows of the scarcer outcome"
