"""Whether a window of partitions is unlike the partitions before it, at a stated rate of false alarms.

Rows of one day share what happened that day, so that a test over rows finds a difference on most days. Here the spread
between the days of the history decides what is usual. docs/monitoring.md has the simulated rates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster.statistics.distribution import difference

if TYPE_CHECKING:
    import numpy as np

# Fewer partitions with rows tell nothing about the spread between them.
LEAST_HISTORY = 14
_SPLITS = 21
_UPPER = 1.645


def novelty(windows: np.ndarray, history: np.ndarray, partitions: int) -> np.ndarray:
    """How probable such a difference from the history, or a larger one, is of a window that is like it.

    The PSI between window and history is, without drift, at most about noise + spread: noise is (1/N + 1/M) chi² with
    B - 1 degrees of freedom (sampling of rows), and spread is v F(1, H - 1) (days that differ; one direction, which is
    the heaviest tail). v comes from each partition's PSI against the others of the history; for a window of several
    also from as many adjoining partitions together, so that neighbours which resemble each other count. The tail of
    the sum is bounded by P(A > x) + P(B > psi - x) for the best x.

    Args:
        windows: (windows, columns, bins) counts of each window; columns with fewer bins are filled with zeros.
        history: (columns, H, bins) counts of the partitions before it, oldest first.
        partitions: how many partitions each window has.

    Returns:
        (windows, columns) p values; NaN for a column with fewer than 14 partitions with rows, or none in the window.
    """
    import numpy as np
    from scipy.special import chdtrc, fdtrc

    there = history.sum(axis=2) > 0
    days = there.sum(axis=1)
    total = history.sum(axis=1)
    spread = _spread(history, total) * (1 / partitions + 1 / np.maximum(days, 1))
    groups = history.shape[1] // partitions
    if partitions > 1 and groups > 1:
        joined = history[:, -groups * partitions :].reshape(len(history), groups, partitions, -1).sum(axis=2)
        spread = np.maximum(spread, _spread(joined, total) * (1 + 1 / groups))
    flat, repeats = windows.reshape(-1, windows.shape[2]), len(windows)
    total, spread, days = np.tile(total, (repeats, 1)), np.tile(spread, repeats), np.tile(days, repeats)
    of = difference(flat, total)
    df = np.maximum((flat + total > 0).sum(axis=1) - 1, 1)
    noise = of.noise / df
    share = np.linspace(0, 1, _SPLITS)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = chdtrc(df, np.nan_to_num(share * of.psi / noise))
        between = np.where(spread > 0, fdtrc(1, np.maximum(days - 1, 1), (1 - share) * of.psi / spread), 0.0)
    # Without a spread all of the difference may be noise.
    p = np.minimum((rows + np.where(share < 1, between, (spread > 0) * 1.0)).min(axis=0), 1.0)
    return np.where((days >= LEAST_HISTORY) & (of.rows > 0), p, np.nan).reshape(windows.shape[:2])


def two_of_three(p: np.ndarray) -> np.ndarray:
    """p of two of the newest three windows at once: 3p² - 2p³ of the second smallest; (3, columns) to (columns,)."""
    import numpy as np

    second = np.sort(p, axis=0)[1]  # NaN sorts last
    return 3 * second**2 - 2 * second**3


def _spread(history: np.ndarray, total: np.ndarray) -> np.ndarray:
    """v: the mean excess PSI of one partition against the others, (columns,), less what the others' own spread adds.

    With few rows the mean is mostly noise, so it is taken at the upper end of a one-sided 95% interval of that noise.
    """
    import numpy as np

    columns, days, bins = history.shape
    rest = total[:, None, :] - history
    of = difference(history.reshape(-1, bins), rest.reshape(-1, bins))
    there = (of.rows > 0).reshape(columns, days)
    count = np.maximum(there.sum(axis=1), 2)
    mean = np.where(there, of.excess.reshape(columns, days), 0.0).sum(axis=1) / count
    df = np.maximum(((history + rest) > 0).sum(axis=2) - 1, 1)
    variance = np.where(there, 2 / df * of.noise.reshape(columns, days) ** 2, 0.0).sum(axis=1) / count**2
    return np.maximum(mean + _UPPER * np.sqrt(variance), 0.0) * (1 - 1 / count)
