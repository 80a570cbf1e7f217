"""What the order of scores says: AUC, average precision, Gini and bins of equal counts, from counts by fine bin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.statistics.metrics.bins import EQUAL_BINS

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Tenths:
    """Ten bins of about equal counts, by score; each field has the shape (K, 10).

    Sums of weights, outcomes, scores and squared weights. Ties stay together, so that a bin can be empty.
    """

    c: np.ndarray
    v: np.ndarray
    x: np.ndarray
    c2: np.ndarray


@dataclass(frozen=True, eq=False)
class Curve:
    """Of K groups: the area under the ROC curve, average precision and Gini, each (K,) and NaN where there is none."""

    auc: np.ndarray
    average_precision: np.ndarray
    gini: np.ndarray
    tenths: Tenths

    @classmethod
    def of_areas(cls, areas: tuple[np.ndarray, np.ndarray, np.ndarray], tenths: Tenths) -> Curve:
        """From the sums over all scores that `curves_sql` has."""
        import numpy as np

        below, precision, lorenz = areas
        c, v = tenths.c.sum(axis=1), tenths.v.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Sums of weights of the same rows may differ in their last bits.
            both = np.minimum(v, c - v) > 1e-12 * c
            auc = np.where(both, below / (v * (c - v)), np.nan)
            return cls(
                auc,
                np.where(v > 0, precision / v, np.nan),
                np.where(v > 0, 2 * lorenz / (c * v) - 1, np.nan),
                tenths,
            )

    @classmethod
    def of_bins(cls, c: np.ndarray, v: np.ndarray, x: np.ndarray, c2: np.ndarray) -> Curve:
        """From the sums (K, bins) of weights, outcomes, scores and squared weights by bin, in the order of scores."""
        import numpy as np

        cum_c, cum_v = np.cumsum(c, axis=1), np.cumsum(v, axis=1)
        all_c, all_v = c.sum(axis=1, keepdims=True), v.sum(axis=1, keepdims=True)
        at_least_c, at_least_v = all_c - cum_c + c, all_v - cum_v + v
        with np.errstate(divide="ignore", invalid="ignore"):
            below = (v * ((cum_c - c) - (cum_v - v) + (c - v) / 2)).sum(axis=1)
            precision = np.where(v > 0, v * at_least_v / at_least_c, 0.0).sum(axis=1)
            lorenz = (c * (at_least_v - v / 2)).sum(axis=1)
            tenth = np.minimum(np.floor(EQUAL_BINS * (cum_c - c / 2) / all_c), EQUAL_BINS - 1)
        place = (np.nan_to_num(tenth).astype(np.int64) + EQUAL_BINS * np.arange(len(c))[:, None]).ravel()
        shape = (len(c), EQUAL_BINS)
        parts = [np.bincount(place, each.ravel(), len(c) * EQUAL_BINS).reshape(shape) for each in (c, v, x, c2)]
        return cls.of_areas((below, precision, lorenz), Tenths(*parts))
