"""Metrics of scores against outcomes, with confidence intervals of the difference between two models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pip_dagster.errors import DeclarationError

if TYPE_CHECKING:
    import numpy as np

    from pip_dagster.declaration.gates import MetricName

RESAMPLES = 500
_SEED = 20130801
# Beyond this many rows the interval is computed from that many at even distances: it is wider, but not wrong.
_MOST_ROWS = 100_000
_CHUNK_CELLS = 2_000_000


@dataclass(frozen=True)
class MetricComparison:
    """Both models' metric on the same rows. `gain` is positive if the candidate is better, whatever the metric."""

    rows: int
    champion: float
    candidate: float
    gain: float
    low: float
    high: float


def default_metric(task: str) -> MetricName:
    """The metric for a model's task, where none is declared."""
    if task in ("binary", "ranking"):
        return "auc"
    return "poisson_deviance" if task == "count" else "rmse"


def compare(
    metric: MetricName, y: np.ndarray, champion: np.ndarray, candidate: np.ndarray, confidence: float
) -> MetricComparison | None:
    """Compare two models on outcomes `y` (rows,), with a paired bootstrap interval of the gain.

    Rows are resampled, the same ones for both models, by Poisson(1) weights, the limit of the multinomial bootstrap of
    independent rows. Rows of one day are not independent, so the interval is too narrow rather than too wide. None if
    the metric has no value: there are no rows, or for AUC only rows of one class.

    Raises:
        DeclarationError: the metric is not defined for these outcomes or scores.
    """
    import numpy as np

    _check(metric, y, champion, candidate)
    if not len(y):
        return None
    whole = np.ones((len(y), 1))  # float64: counts beyond 2**24 stay whole
    values = [float(_prepare(metric, y, scores)(whole)[0]) for scores in (champion, candidate)]
    if np.isnan(values).any():
        return None
    sign = 1.0 if metric == "auc" else -1.0
    gains = sign * _resampled(metric, y, champion, candidate)
    gains = gains[~np.isnan(gains)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(gains, [tail, 1 - tail]) if len(gains) else (-np.inf, np.inf)
    return MetricComparison(len(y), values[0], values[1], sign * (values[1] - values[0]), float(low), float(high))


def _resampled(metric: MetricName, y: np.ndarray, champion: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Differences, candidate minus champion, over the resamples, in chunks that bound the memory."""
    import numpy as np

    if len(y) > _MOST_ROWS:
        kept = np.linspace(0, len(y) - 1, _MOST_ROWS).astype(np.int64)
        y, champion, candidate = y[kept], champion[kept], candidate[kept]
    old, new = (_prepare(metric, y, scores) for scores in (champion, candidate))
    rng, quantiles = np.random.default_rng(_SEED), _poisson_quantiles()
    step = max(1, min(RESAMPLES, _CHUNK_CELLS // len(y)))
    found = []
    for begin in range(0, RESAMPLES, step):
        shape = (len(y), min(step, RESAMPLES - begin))
        weights = quantiles[rng.integers(0, len(quantiles), shape, dtype=np.uint16)]
        found.append(new(weights) - old(weights))
    return np.concatenate(found)


@dataclass(frozen=True)
class Resampled:
    """A figure, and its value in each resample."""

    value: float
    values: np.ndarray


def resample(
    metric: MetricName | Literal["mean"], y: np.ndarray, scores: np.ndarray, units: np.ndarray, seed: int
) -> Resampled | None:
    """A metric of outcomes `y` (rows,), or their mean, resampled by unit; `units` numbers each row's from 0.

    All rows of a unit get the same Poisson(1) weight, since they are not independent. If there are very many rows, only
    those of units at even distances are resampled: the interval is then wider. None if the metric has no value.

    Raises:
        DeclarationError: the metric is not defined for these outcomes or scores.
    """
    import numpy as np

    y, scores, units = np.asarray(y, np.float64), np.asarray(scores), np.asarray(units).astype(np.int64)
    if metric != "mean":
        _check(metric, y, scores)
    of = _weighted_mean(y) if metric == "mean" else _prepare(metric, y, scores)
    value = float(of(np.ones((len(y), 1)))[0])
    if np.isnan(value):
        return None
    rng, quantiles = np.random.default_rng((_SEED, seed)), _poisson_quantiles()
    every = -(-len(y) // (10 * _MOST_ROWS))
    if every > 1:
        kept = units % every == 0
        y, scores, units = y[kept], scores[kept], units[kept] // every
        of = _weighted_mean(y) if metric == "mean" else _prepare(metric, y, scores)
    step = max(1, min(RESAMPLES, _CHUNK_CELLS // max(len(y), 1)))
    found = []
    for begin in range(0, RESAMPLES, step):
        shape = (int(units.max()) + 1, min(step, RESAMPLES - begin))
        weights = quantiles[rng.integers(0, len(quantiles), shape, dtype=np.uint16)]
        found.append(of(weights[units]))
    return Resampled(value, np.concatenate(found))


def _weighted_mean(y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    import numpy as np

    def mean(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(y @ weights / weights.sum(axis=0, dtype=np.float64))

    return mean


def _poisson_quantiles() -> np.ndarray:
    """Poisson(1) by inversion in 65536 steps: a tenth of the time of numpy's own generator."""
    import numpy as np

    probabilities = np.exp(-1.0) / np.cumprod([1.0, *range(1, 12)])
    at = (np.arange(65_536) + 0.5) / 65_536
    return np.searchsorted(np.cumsum(probabilities), at).astype(np.float32)


def _prepare(metric: MetricName, y: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The metric as a function of weights (rows, resamples), one value for each resample, NaN if undefined."""
    import numpy as np

    scores = scores.astype(np.float64)
    if metric == "auc":
        return _auc(y, scores)
    if metric == "logloss":
        p = np.clip(scores, 1e-7, 1 - 1e-7)
        loss = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    elif metric == "poisson_deviance":
        mean = np.maximum(scores, 1e-12)
        loss = 2 * (np.where(y > 0, y * np.log(np.where(y > 0, y, 1) / mean), 0.0) - y + mean)
    else:
        loss = (y - scores) ** 2

    def mean_loss(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            means = loss @ weights / weights.sum(axis=0, dtype=np.float64)
        return np.sqrt(means) if metric == "rmse" else means

    return mean_loss


def _auc(y: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Weighted area under the ROC curve: the share of (positive, negative) pairs in the right order, ties half."""
    import numpy as np

    positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    negative = negative[np.argsort(scores[negative], kind="stable")]
    ranked = scores[negative]
    below, up_to = (np.searchsorted(ranked, scores[positive], side) for side in ("left", "right"))

    def area(weights: np.ndarray) -> np.ndarray:
        before = np.zeros((len(negative) + 1, weights.shape[1]), dtype=weights.dtype)
        np.cumsum(weights[negative], axis=0, out=before[1:])  # whole numbers: exact
        of = weights[positive]
        right = (of * (before[below] + before[up_to])).sum(axis=0, dtype=np.float64) / 2
        pairs = of.sum(axis=0, dtype=np.float64) * before[-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(pairs > 0, right / pairs, np.nan)

    return area


def _check(metric: MetricName, y: np.ndarray, *scores: np.ndarray) -> None:
    import numpy as np

    if metric in ("auc", "logloss") and not np.isin(y, (0, 1)).all():
        raise DeclarationError(f"gates.metric {metric} requires outcomes 0 and 1; gates.labels has others.")
    if metric == "poisson_deviance" and (y < 0).any():
        raise DeclarationError(
            "gates.metric poisson_deviance requires outcomes of 0 and more; gates.labels has others."
        )
    if metric == "logloss" and any(((each < 0) | (each > 1)).any() for each in scores):
        raise DeclarationError("gates.metric logloss requires probabilities; the model's scores are not.")
