"""How sure the metrics of a window are, where the rows of a partition share what happened that day."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster.statistics.interval import t_quantile
from pip_dagster.statistics.metrics.sums import Stack

if TYPE_CHECKING:
    import numpy as np

# With fewer partitions, the spread between them is hardly known.
LEAST_PARTITIONS = 7
# Chance alone makes calibration errors larger than 0, and numbers of queries are no estimates.
WITHOUT_INTERVAL = frozenset({"ece", "ece_chance", "queries", "queries_without_relevant"})


def intervals(stack: Stack, confidence: float = 0.95) -> dict[str, tuple[float, float]]:
    """Intervals of the metrics of all partitions together, by leaving out one partition at a time.

    The delete-a-group jackknife (Quenouille 1949, Tukey 1958) with the partitions as groups: the variance is
    (T - 1) / T times the sum of squared deviations of the T figures without one partition; the interval has Student's t
    with T - 1 degrees of freedom. It needs sums alone, no rows and no random numbers. Units that recur in several
    partitions are not in it: where they matter, use `statistics.arms.estimate` on rows.

    Args:
        stack: the sums of the window's partitions; those without rows do not count.
        confidence: between 0 and 1.

    Returns:
        The ends by metric; none of `WITHOUT_INTERVAL` and of a metric that has no value without one of the partitions,
        and none at all with fewer than 7 partitions.
    """
    import numpy as np

    there = np.flatnonzero(stack.totals["n"] > 0)
    count = len(there)
    if count < LEAST_PARTITIONS:
        return {}
    weights = np.zeros((count + 1, len(stack)))
    weights[:, there] = 1
    weights[np.arange(1, count + 1), there] = 0
    t = t_quantile((1 + confidence) / 2, count - 1)
    found: dict[str, tuple[float, float]] = {}
    for name, figure in stack.figures(weights)[0].items():
        values: np.ndarray = figure.values
        if name in WITHOUT_INTERVAL or not np.isfinite(values).all():
            continue
        without = values[1:]
        half = t * float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))
        found[name] = (float(values[0]) - half, float(values[0]) + half)
    return found
