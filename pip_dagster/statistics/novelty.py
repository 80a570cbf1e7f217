"""Whether a window of partitions is unlike the partitions before it, at a stated rate of false alarms.

Rows of one day share what happened that day, so that a test over rows finds a difference on most days. Here the spread
between the days of the history decides what is usual (`usual.py`). docs/monitoring.md has the simulated rates.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pip_dagster.statistics.distribution import stability
from pip_dagster.statistics.usual import Usual

if TYPE_CHECKING:
    import numpy as np

# Fewer partitions with rows tell nothing about the spread between them.
LEAST_HISTORY = 14
_SPLITS = 21
_COARSE = 5
# A p value above this is of no interest, and known well enough from every fifth split.
_SMALL = 0.1
_GRID = 20


def novelty(windows: np.ndarray, of: Usual, reference: np.ndarray, partitions: int) -> np.ndarray:
    """How probable such a difference from the history, or a larger one, is of a window that is like it.

    The PSI between window and history is, without drift, at most about noise + spread: noise is (1/N + 1/M) chi² with
    B - 1 degrees of freedom (sampling of rows), and spread is v F(1, n - 1) (days that differ; one direction, which is
    the heaviest tail; n independent days). The tail of the sum is bounded by P(A > x) + P(B > psi - x) for the best x.

    Args:
        windows: (columns, positions, bins) counts.
        of: their histories.
        reference: the history's counts to compare with, `of.reference(...)`.
        partitions: how many partitions each window has.

    Returns:
        (columns, positions) p values; NaN for a column with fewer than 14 partitions with rows, or none in the window.
    """
    import numpy as np

    psi, noise, df = stability(windows.astype(np.float64), reference)
    spread = _spread_between(of, partitions)
    there = (of.days >= LEAST_HISTORY) & (windows.sum(axis=2) > 0) & (reference.sum(axis=2) > 0)
    # Days of which each resembles the one before tell as much as fewer independent ones.
    days = (of.days - of.means_taken) * (1 - of.likeness**2) / (1 + of.likeness**2)
    terms = np.stack([psi, noise / np.maximum(df, 1), df, spread, np.maximum(days, 1)])[:, there]
    p = _tail(terms, slice(None, None, _COARSE))
    small = p < _SMALL
    p[small] = _tail(terms[:, small], slice(None))
    found = np.full(there.shape, np.nan)
    found[there] = p
    return found


def _tail(terms: np.ndarray, splits: slice) -> np.ndarray:
    """The least bound P(noise > x) + P(spread > psi - x) over the splits x of psi; `terms` are (5, cases)."""
    import numpy as np
    from scipy.special import chdtrc, fdtrc

    psi, noise, df, spread, days = terms
    share = np.linspace(0, 1, _SPLITS)[splits, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = chdtrc(np.maximum(df, 1), np.nan_to_num(share * psi / noise))
        between = np.where(spread > 0, fdtrc(1, days, (1 - share) * psi / spread), 0.0)
    # Without a spread all of the difference may be noise.
    return np.minimum((rows + np.where(share < 1, between, (spread > 0) * 1.0)).min(axis=0), 1.0)


def _spread_between(of: Usual, partitions: int) -> np.ndarray:
    """The mean of the spread's part of the PSI between a window and its history."""
    import numpy as np

    days = np.maximum(of.days, 1)
    alone = np.interp(of.likeness, *_variance_by_likeness(partitions, of.span)) + 1 / days - 1 / of.span
    # A mean for each phase is of so many days fewer.
    return of.spread * alone * (1 + of.means_taken / days) / np.where(of.means_taken > 1, 1 + partitions / days, 1.0)


@lru_cache(64)
def _variance_by_likeness(partitions: int, span: int) -> tuple[np.ndarray, np.ndarray]:
    """Likenesses, and for each the variance of a window's mean less the history's, over the days' observed variance.

    The days are a stationary autoregression of the first order; 1 / partitions + 1 / span where they are independent.
    """
    import numpy as np

    grid = np.linspace(0, 0.95, _GRID)
    places = np.arange(span + partitions)
    before = places < span
    weights = np.where(before, -1 / span, 1 / partitions)
    found = []
    for likeness in grid:
        alike = likeness ** np.abs(places[:, None] - places)
        # Days that resemble each other differ less within a history than they do at large.
        observed = span / (span - 1) * (1 - alike[before][:, before].mean())
        found.append(weights @ alike @ weights / observed)
    return grid, np.array(found)


def two_of_three(p: np.ndarray, likeness: np.ndarray) -> np.ndarray:
    """p of two of the newest three windows at once: 3u² - 2u³ for the second smallest p, u = p^(1 / (1 + likeness)).

    The exponent is that of the joint tail of two normal variables with this correlation. (3, ...) to (...).
    """
    import numpy as np

    u = np.sort(p, axis=0)[1] ** (1 / (1 + likeness))  # NaN sorts last
    return 3 * u**2 - 2 * u**3
