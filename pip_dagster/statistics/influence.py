"""A metric of scores against outcomes, and how much each row contributes to its error: the influence function.

The estimate less the truth is, to first order, the mean of the influence function `psi` over the rows. Sums of `psi` by
cluster therefore give a standard error in one pass, without resampling. The difference of two models on the same rows
has the difference of their `psi`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pip_dagster.errors import DeclarationError

if TYPE_CHECKING:
    import numpy as np

Metric = Literal[
    "auc", "logloss", "rmse", "poisson_deviance", "multi_logloss", "accuracy", "macro_f1", "ovr_auc", "mean"
]

HIGHER_IS_BETTER: frozenset[str] = frozenset({"auc", "accuracy", "macro_f1", "ovr_auc"})
# Scores of these have one column for each class.
MULTICLASS: frozenset[str] = frozenset({"multi_logloss", "accuracy", "macro_f1", "ovr_auc"})
# Figures of these depend on each class alone, however few rows it has.
_BY_CLASS: frozenset[str] = frozenset({"auc", "macro_f1", "ovr_auc"})
_LEAST_PROBABILITY = 1e-7
_LEAST_MEAN = 1e-12


@dataclass(frozen=True, eq=False)
class Influence:
    """A metric's `value` and the influence `psi` (rows,) of each row, in the metric's unit; the mean of `psi` is 0."""

    value: float
    psi: np.ndarray


def influence(metric: Metric, y: np.ndarray, scores: np.ndarray) -> Influence | None:
    """Compute a metric and its influence function for one model.

    - `auc`: y=1 (F0(s) - A) n/n1, y=0 (1 - F1(s) - A) n/n0, where F0 and F1 are the shares of negatives and positives
      below s, ties half (DeLong, DeLong and Clarke-Pearson 1988; by unit: Obuchowski 1997).
    - `logloss`, `poisson_deviance`, `multi_logloss`, `accuracy`, `mean` (of the outcomes): the row's term - the mean.
    - `rmse`: (e² - MSE) / (2 RMSE), the delta method.
    - `macro_f1`: the mean over classes of (2 [true positive] - F1 ([y=k] + [predicted=k])) / (P + Q), where P and Q are
      the shares of rows of the class and of rows predicted as it (delta method). The predicted class is the first one
      with the highest score.
    - `ovr_auc`: the mean over classes of the AUC of one class against all others.

    The last two average over the classes that occur in `y`, so that two models are compared on the same classes.

    Args:
        metric: which one.
        y: outcomes (rows,): 0 or 1; counts of 0 or more; any number; for several classes, class codes from 0.
        scores: (rows,), or (rows, classes) for several classes. Probabilities for `logloss`, `multi_logloss`. Ignored
            for `mean`.

    Returns:
        None where the metric has no value: no rows, or for `auc` and `ovr_auc` rows of one class only.

    Raises:
        DeclarationError: outcomes or scores that are not finite or that the metric is not for.
    """
    import numpy as np

    y = np.asarray(y, np.float64)
    scores = y if metric == "mean" else np.asarray(scores, np.float64)
    _check(metric, y, scores)
    if not len(y):
        return None
    if metric == "auc":
        return _auc(y == 1, scores)
    if metric == "ovr_auc":
        codes = np.unique(y).astype(np.int64)
        return _mean_of([_auc(y == code, scores[:, code]) for code in codes]) if len(codes) > 1 else None
    if metric == "macro_f1":
        predicted = scores.argmax(axis=1)
        return _mean_of([_f1(y == code, predicted == code) for code in np.unique(y)])
    loss = _loss(metric, y, scores)
    mean = float(loss.mean())
    if metric != "rmse":
        return Influence(mean, loss - mean)
    root = mean**0.5
    return Influence(root, (loss - mean) / (2 * root) if root else np.zeros(len(y)))


def base_value(metric: Metric, y: np.ndarray) -> float:
    """Return the metric of a model that knows only the outcomes' shares or mean.

    AUC: 0.5. Losses: of the mean outcome, or of the classes' shares. Accuracy and macro F1: of the most frequent class.

    Args:
        metric: any but `mean`.
        y: outcomes (rows,), at least one, already checked by `influence`.
    """
    import numpy as np

    if metric in ("auc", "ovr_auc"):
        return 0.5
    if metric in ("rmse", "poisson_deviance") and y.min() == y.max():
        return 0.0  # exactly, where a mean is rounded
    if metric == "rmse":
        return float(np.std(y))
    if metric == "poisson_deviance":
        return float(_loss(metric, y, np.full(len(y), y.mean())).mean())
    shares = np.unique(y, return_counts=True)[1] / len(y)
    if metric in ("logloss", "multi_logloss"):
        return float(-(shares * np.log(shares)).sum())
    most = float(shares.max())
    return most if metric == "accuracy" else 2 * most / (1 + most) / len(shares)


def scarce_outcomes(metric: Metric, y: np.ndarray, unit: np.ndarray) -> tuple[int, int]:
    """Count the rows of the scarcest outcome and the units that limit the degrees of freedom.

    The rows are those of the rarest class that occurs (`auc`, `macro_f1`, `ovr_auc`), those outside the most frequent
    class (other metrics of classes), those with an outcome above 0 (`poisson_deviance`), or all. The units are those
    with a row of the rarest class for the first three metrics, and all units for the others.

    Args:
        metric: which one.
        y: outcomes (rows,).
        unit: integer codes (rows,).
    """
    import numpy as np

    if not len(y):
        return 0, 0
    units = len(np.unique(unit))
    if metric in ("rmse", "mean"):
        return len(y), units
    if metric == "poisson_deviance":
        return int((y > 0).sum()), units
    codes, counts = np.unique(y, return_counts=True)
    if len(codes) < 2:
        return 0, 0 if metric in _BY_CLASS else units
    if metric not in _BY_CLASS:
        return int(len(y) - counts.max()), units
    return int(counts.min()), min(len(np.unique(unit[y == code])) for code in codes)


def _auc(positive: np.ndarray, scores: np.ndarray) -> Influence | None:
    import numpy as np

    n, n1 = len(positive), int(positive.sum())
    n0 = n - n1
    if not n1 or not n0:
        return None
    rank = np.unique(scores, return_inverse=True)[1]
    below = np.empty((2, n))
    for i, group in enumerate((~positive, positive)):
        here = np.bincount(rank[group], minlength=int(rank.max()) + 1)
        below[i] = (np.cumsum(here) - here / 2)[rank] / (n0, n1)[i]
    value = float(below[0, positive].mean())
    psi = np.where(positive, (below[0] - value) * (n / n1), (1 - below[1] - value) * (n / n0))
    return Influence(value, psi)


def _f1(actual: np.ndarray, predicted: np.ndarray) -> Influence:
    import numpy as np

    either = actual.astype(np.float64) + predicted
    value = float(2 * (actual & predicted).sum() / either.sum())
    return Influence(value, (2.0 * (actual & predicted) - value * either) / either.mean())


def _mean_of(found: list[Influence | None] | list[Influence]) -> Influence:
    values = [each for each in found if each is not None]
    psi = values[0].psi
    for each in values[1:]:
        psi = psi + each.psi
    return Influence(sum(each.value for each in values) / len(values), psi / len(values))


def _loss(metric: Metric, y: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Each row's term (rows,) of a metric that is a mean, or the root of one."""
    import numpy as np

    if metric == "logloss":
        p = np.clip(scores, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
        return np.asarray(-(y * np.log(p) + (1 - y) * np.log1p(-p)))
    if metric == "rmse":
        return np.asarray((y - scores) ** 2)
    if metric == "poisson_deviance":
        ratio = np.where(y > 0, y, 1) / np.maximum(scores, _LEAST_MEAN)
        return np.asarray(2 * (np.where(y > 0, y * np.log(ratio), 0.0) - y + scores))
    if metric == "multi_logloss":
        own = scores[np.arange(len(y)), y.astype(np.int64)]
        return np.asarray(-np.log(np.clip(own, _LEAST_PROBABILITY, 1.0)))
    if metric == "accuracy":
        return np.asarray(scores.argmax(axis=1) == y, np.float64)
    return y  # the mean of the outcomes


def _check(metric: Metric, y: np.ndarray, scores: np.ndarray) -> None:
    import numpy as np

    where = f"gates.metric {metric}"
    several = metric in MULTICLASS
    if y.ndim != 1 or scores.ndim != 1 + several or len(scores) != len(y):
        shape = "(rows, classes)" if several else "(rows,)"
        raise DeclarationError(
            f"{where} needs outcomes (rows,) and scores {shape}; found {y.shape} and {scores.shape}. "
            "Declare a metric for this model's outputs."
        )
    for what, values in (("outcome", y), ("score", scores)):
        if bad := int((~np.isfinite(values)).sum()):
            raise DeclarationError(f"{where}: {bad:,} {what}s are NaN or infinite; each {what} must be finite.")
    if metric in ("auc", "logloss") and not np.isin(y, (0, 1)).all():
        raise DeclarationError(f"{where} is for outcomes 0 and 1; the labels are others.")
    if metric == "poisson_deviance" and ((y < 0).any() or (scores < 0).any()):
        raise DeclarationError(f"{where} is for outcomes and scores of 0 or more; found a negative one.")
    if metric in ("logloss", "multi_logloss") and ((scores < 0) | (scores > 1)).any():
        raise DeclarationError(f"{where} is for probabilities; the model's scores are not between 0 and 1.")
    if several and ((y < 0) | (y >= scores.shape[1]) | (y != np.floor(y))).any():
        raise DeclarationError(
            f"{where} is for class codes 0 to {scores.shape[1] - 1}, one for each of the model's scores; the "
            "labels are others."
        )
    if metric == "multi_logloss" and len(y) and np.abs(scores.sum(axis=1) - 1).max() > 0.01:
        raise DeclarationError(f"{where} is for probabilities; a row's scores do not add up to 1.")
