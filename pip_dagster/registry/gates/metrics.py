"""How good scores are against what came of it, and how sure a difference between two models is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError

if TYPE_CHECKING:
    import numpy as np

    from pip_dagster.spec_gates import MetricName

RESAMPLES = 500
_SEED = 20130801
# Beyond this many rows the interval is made from that many at even distances: wider, so slower to refuse, never wrong.
_MOST_ROWS = 200_000
_CHUNK_CELLS = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """Both models' metric on the same rows. `gain` is positive where the candidate is better, whatever the metric."""

    rows: int
    champion: float
    candidate: float
    gain: float
    low: float
    high: float


def default_metric(objective: str) -> MetricName:
    """The metric where none is declared."""
    if objective.startswith(("binary:", "rank:")):
        return "auc"
    return "poisson_deviance" if objective in ("count:poisson", "reg:tweedie") else "rmse"


def compare(
    metric: MetricName, y: np.ndarray, champion: np.ndarray, candidate: np.ndarray, confidence: float
) -> Comparison | None:
    """Compare two models on outcomes `y` (rows,), with a paired bootstrap interval of the gain.

    Rows are resampled, the same ones for both models, by Poisson(1) weights: what the multinomial bootstrap of
    independent rows tends to. Rows of one day are not independent, so the interval is rather too narrow than too wide.
    None where the metric has no value: no rows, or for AUC rows of one class only.

    Raises:
        DeclarationError: outcomes or scores that the metric is not for.

    """
    import numpy as np

    _check(metric, y, champion, candidate)
    whole = np.ones((1, len(y)))
    values = [float(_metric(metric, y, scores, whole)[0]) for scores in (champion, candidate)] if len(y) else [np.nan]
    if np.isnan(values).any():
        return None
    sign = 1.0 if metric == "auc" else -1.0
    gains = sign * _resampled(metric, y, champion, candidate)
    gains = gains[~np.isnan(gains)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(gains, [tail, 1 - tail]) if len(gains) else (-np.inf, np.inf)
    return Comparison(len(y), values[0], values[1], sign * (values[1] - values[0]), float(low), float(high))


def _resampled(metric: MetricName, y: np.ndarray, champion: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Differences candidate - champion over the resamples, in chunks that bound the memory."""
    import numpy as np

    if len(y) > _MOST_ROWS:
        kept = np.linspace(0, len(y) - 1, _MOST_ROWS).astype(np.int64)
        y, champion, candidate = y[kept], champion[kept], candidate[kept]
    rng = np.random.default_rng(_SEED)
    step = max(1, min(RESAMPLES, _CHUNK_CELLS // len(y)))
    found = []
    for begin in range(0, RESAMPLES, step):
        weights = rng.poisson(1.0, (min(step, RESAMPLES - begin), len(y))).astype(np.float64)
        found.append(_metric(metric, y, candidate, weights) - _metric(metric, y, champion, weights))
    return np.concatenate(found)


def _metric(metric: MetricName, y: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The metric under each row of `weights` (resamples, rows); NaN where it has no value."""
    import numpy as np

    scores = scores.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        if metric == "auc":
            return _auc(y, scores, weights)
        if metric == "logloss":
            p = np.clip(scores, 1e-7, 1 - 1e-7)
            loss = -(y * np.log(p) + (1 - y) * np.log1p(-p))
        elif metric == "poisson_deviance":
            mean = np.maximum(scores, 1e-12)
            loss = 2 * (np.where(y > 0, y * np.log(np.where(y > 0, y, 1) / mean), 0.0) - y + mean)
        else:
            loss = (y - scores) ** 2
        mean_loss = weights @ loss / weights.sum(axis=1)
        return np.sqrt(mean_loss) if metric == "rmse" else mean_loss


def _auc(y: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted area under the ROC curve by ranks (Mann-Whitney): ties count half."""
    import numpy as np

    order = np.argsort(scores, kind="stable")
    ranked, outcome = scores[order], y[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    sorted_weights = weights[:, order]
    positive = np.add.reduceat(sorted_weights * outcome, starts, axis=1)
    negative = np.add.reduceat(sorted_weights * (1 - outcome), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return np.where(pairs > 0, (positive * (below + negative / 2)).sum(axis=1) / pairs, np.nan)


def _check(metric: MetricName, y: np.ndarray, *scores: np.ndarray) -> None:
    import numpy as np

    if metric in ("auc", "logloss") and not np.isin(y, (0, 1)).all():
        raise DeclarationError(f"gates.metric {metric} is for outcomes 0 and 1; gates.labels gives others.")
    if metric == "poisson_deviance" and (y < 0).any():
        raise DeclarationError(
            "gates.metric poisson_deviance is for outcomes of 0 and more; gates.labels gives others."
        )
    if metric == "logloss" and any(((each < 0) | (each > 1)).any() for each in scores):
        raise DeclarationError("gates.metric logloss is for probabilities; the model's scores are none.")
