"""How far a distribution moved, from counts by bin alone: population stability, chi-squared, Jensen-Shannon distance.

Counts add up: a window of partitions has the sum of their counts. All functions take many windows or columns at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Expected counts below this are merged for the chi-squared test (Cochran 1954).
_LEAST_EXPECTED = 5.0


@dataclass(frozen=True, eq=False)
class Difference:
    """The difference of each window's distribution from its reference; every field has the shape (windows,).

    Attributes:
        rows: rows of the window.
        psi: population stability index: the sum over bins of (q - p) ln(q / p), with shares
            (count + 1/2) / (rows + bins / 2). A bin that is empty on both sides adds nothing.
        noise: the mean of `psi` without any difference, (B - 1)(1/N + 1/M) for B bins (Yurdakul 2018).
        distance: Jensen-Shannon distance, base 2: 0 to 1.
        largest: the bin whose share changed most, and `change`, by how much: share now - share in the reference.
        chi2: the two-sample chi-squared statistic, with `df` and `p`, over bins with an expected count of 5 or more;
            the others count as one bin. It says that rows differ by more than sampling; rows of one day often do.
    """

    rows: np.ndarray
    psi: np.ndarray
    noise: np.ndarray
    distance: np.ndarray
    largest: np.ndarray
    change: np.ndarray
    chi2: np.ndarray
    df: np.ndarray
    p: np.ndarray

    @property
    def excess(self) -> np.ndarray:
        """PSI beyond its noise: about 0 without a difference, whatever the number of rows."""
        return self.psi - self.noise


def difference(current: np.ndarray, reference: np.ndarray) -> Difference:
    """Compare windows with their reference, bin by bin.

    Args:
        current: (windows, bins) counts.
        reference: (bins,) counts for all windows, or (windows, bins).

    Returns:
        Where a window or its reference has no rows all figures are 0, and p is 1.
    """
    import numpy as np
    from scipy.special import chdtrc

    n = np.atleast_2d(np.asarray(current, np.float64))
    m = np.broadcast_to(np.asarray(reference, np.float64), n.shape)
    rows, of = n.sum(axis=1, keepdims=True), m.sum(axis=1, keepdims=True)
    there = ((rows > 0) & (of > 0))[:, 0]
    psi, noise, _ = stability(n, m)
    with np.errstate(divide="ignore", invalid="ignore"):
        q, p = n / rows, m / of
        mean = (q + p) / 2
        parts = [np.where(each > 0, each * np.log2(each / mean), 0.0).sum(axis=1) for each in (q, p)]
        distance = np.sqrt(np.clip((parts[0] + parts[1]) / 2, 0, 1))
        chi2, df = _chi2(n, m, rows, of)
    change = np.where(there[:, None], q - p, 0.0)
    largest = np.abs(change).argmax(axis=1)
    by = np.take_along_axis(change, largest[:, None], axis=1)[:, 0]
    distance, chi2 = (np.where(there, each, 0.0) for each in (distance, chi2))
    df = np.where(there, df, 0)
    p_value = np.where(df > 0, chdtrc(np.maximum(df, 1), chi2), 1.0)
    return Difference(rows[:, 0], psi, noise, distance, largest, by, chi2, df, p_value)


def stability(n: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PSI, its noise and its degrees of freedom (see `Difference`) from float counts of the shape (..., bins).

    All are 0 where either side has no rows.
    """
    return stability_of(n, m, n.sum(axis=-1), m.sum(axis=-1))


def stability_of(
    n: np.ndarray, m: np.ndarray, rows: np.ndarray, of: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same where the rows of each side are known."""
    import numpy as np

    used = n + m > 0
    bins = used.sum(axis=-1)
    # A bin that is empty on both sides has the logarithm 0.
    a, b = (n + 0.5, m + 0.5) if used.all() else (np.where(used, n + 0.5, 1.0), np.where(used, m + 0.5, 1.0))
    there = (rows > 0) & (of > 0)
    logs = np.log(a / b)
    # The shares of both sides add up to 1, so that their totals may stay outside of the logarithm.
    parts = (np.einsum("...b,...b->...", each, logs) for each in (a, b))
    q, p = (part / np.maximum(total + bins / 2, 0.5) for part, total in zip(parts, (rows, of), strict=True))
    noise = (bins - 1) * (1 / np.maximum(rows, 1) + 1 / np.maximum(of, 1))
    return np.where(there, q - p, 0.0), np.where(there, noise, 0.0), np.where(there, bins - 1, 0)


def _chi2(n: np.ndarray, m: np.ndarray, rows: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Statistic and degrees of freedom: the sum of (√(M/N) n - √(N/M) m)² / (n + m) over the merged bins."""
    import numpy as np

    expected = (n + m) * np.minimum(rows, of) / (rows + of)
    kept = expected >= _LEAST_EXPECTED
    rest = ~kept
    other = [np.where(rest, each, 0.0).sum(axis=1, keepdims=True) for each in (n, m, expected)]
    # Where even the rest together is too small, it joins the smallest of the bins that are kept.
    joins = (other[2] < _LEAST_EXPECTED) & kept.any(axis=1, keepdims=True)
    at = np.where(kept, expected, np.inf).argmin(axis=1)[:, None]
    bins = []
    for counts, extra in ((n, other[0]), (m, other[1])):
        merged = np.where(kept, counts, 0.0)
        np.put_along_axis(merged, at, np.take_along_axis(merged, at, 1) + np.where(joins, extra, 0.0), 1)
        bins.append(np.concatenate([merged, np.where(joins, 0.0, extra)], axis=1))
    both = bins[0] + bins[1]
    terms = (np.sqrt(of / rows) * bins[0] - np.sqrt(rows / of) * bins[1]) ** 2 / both
    return np.where(both > 0, terms, 0.0).sum(axis=1), (both > 0).sum(axis=1) - 1


def adjusted(p: np.ndarray) -> np.ndarray:
    """Adjust p values for their number (Benjamini and Hochberg 1995), along the last axis. NaN is no p value.

    Rejecting where the result is at most q keeps the false discovery rate at q; without any true difference, the
    probability of any alarm. It also holds for positively dependent columns (Benjamini and Yekutieli 2001).
    """
    import numpy as np

    p = np.asarray(p, np.float64)
    count = np.isfinite(p).sum(axis=-1, keepdims=True)
    order = np.argsort(p, axis=-1)  # NaN last
    ranked = np.take_along_axis(p, order, -1) * count / np.arange(1, p.shape[-1] + 1)
    least = np.fmin.accumulate(ranked[..., ::-1], axis=-1)[..., ::-1]
    found = np.empty_like(p)
    np.put_along_axis(found, order, np.minimum(least, 1.0), -1)
    return np.where(np.isfinite(p), found, np.nan)
