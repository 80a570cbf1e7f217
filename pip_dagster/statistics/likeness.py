"""Whether labelled rows are like all rows, by their scores: labels that come early can be of one kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.statistics.distribution import stability

if TYPE_CHECKING:
    import numpy as np

# Labelled rows that differ by more, and not by chance, are not like the rest.
MOST_PSI = 0.1
LEAST_P = 0.01


@dataclass(frozen=True)
class Likeness:
    """`psi` beyond noise of the labelled rows' scores against those of all rows; `unlike`: more than the limit."""

    psi: float
    unlike: bool


def likeness(labelled: np.ndarray, rows: np.ndarray) -> Likeness:
    """Compare the labelled rows with all rows, of which they are part.

    If labels come to rows at random, the PSI is about (1/n - 1/N) chi-squared with B - 1 degrees of freedom: of n rows
    drawn from N without replacement.

    Args:
        labelled: (bins,) counts of the labelled rows by score.
        rows: (bins,) counts of all rows.
    """
    n, of = float(labelled.sum()), float(rows.sum())
    df = int((rows > 0).sum()) - 1
    if not n or n >= of or df < 1:
        return Likeness(0.0, unlike=False)
    psi, scale = float(stability(labelled.astype(float), rows.astype(float))[0]), 1 / n - 1 / of
    excess = psi - df * scale
    if excess <= MOST_PSI:
        return Likeness(excess, unlike=False)
    from scipy.special import chdtrc  # whose import takes longer than the figures of a year

    return Likeness(excess, unlike=float(chdtrc(df, psi / scale)) < LEAST_P)
