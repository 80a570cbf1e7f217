"""The calibrator: from a score to the probability of the outcome, with how uncertain that is.

Platt's logistic curve with two bends. In simulations it is as good as Platt's where that holds, and as isotonic
regression where it does not (docs/estimates.md has the figures). Unlike isotonic regression it has a covariance, which
says how far an estimate made with it can be off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# As logloss is clipped: a score of exactly 0 or 1 has a finite logit.
CLIP = 1e-7
LARGEST = math.log((1 - CLIP) / CLIP)
# Logits are counted in steps of 1 / this, so that a fit reads some thousand counts whatever the rows.
GRAIN = 100
TERMS = 4

# Where the curve may bend: at these quantiles of the logits. By how much, in standard deviations of the prior.
_BENDS = (0.5, 0.9)
_PRIOR = 1.0
_ITERATIONS = 100


@dataclass(frozen=True)
class ScoreCurve:
    """logit P(outcome) = c0 + c1·x + c2·max(x - k0, 0) + c3·max(x - k1, 0), for the logit x of a score.

    `covariance` of the four coefficients, row by row; `rows` and `positives` that they are from.
    """

    coefficients: tuple[float, ...]
    covariance: tuple[float, ...]
    knots: tuple[float, float]
    rows: int
    positives: int

    def sql(self, logit: str) -> str:
        """SQL of the probability."""
        terms = " + ".join(
            f"{c!r} * {term}" for c, term in zip(self.coefficients, terms_sql(logit, self.knots), strict=True)
        )
        return f"(1 / (1 + exp(-least(greatest({terms}, {-LARGEST!r}), {LARGEST!r}))))"

    def variance(self, derivatives: Sequence[float]) -> float:
        """The variance that the coefficients' uncertainty gives to a figure with these derivatives by them."""
        return max(
            0.0,
            sum(
                a * b * self.covariance[i * TERMS + j]
                for i, a in enumerate(derivatives)
                for j, b in enumerate(derivatives)
            ),
        )


def terms_sql(logit: str, knots: Sequence[float]) -> tuple[str, ...]:
    """SQL of what the coefficients multiply."""
    return ("1", logit, *(f"greatest({logit} - {knot!r}, 0)" for knot in knots))


def logit_sql(score: str, *, margin: bool = False) -> str:
    """SQL of the logit, finite for any number, of a score that is a probability, or the logit itself (`margin`)."""
    if margin:
        return f"least(greatest({score}, {-LARGEST!r}), {LARGEST!r})"
    clipped = f"least(greatest({score}, {CLIP!r}), {1 - CLIP!r})"
    return f"(ln({clipped}) - ln(1 - {clipped}))"


def fit_curve(
    logits: np.ndarray, rows: np.ndarray, positives: np.ndarray, knots: tuple[float, float] | None = None
) -> ScoreCurve:
    """Fit on counts: how many rows each logit has, and how many of them are positive; (n,) each.

    Weak priors keep every fit finite: one outcome too many or too few, equal scores, separable data. `knots`: of the
    curve for all rows, where this one is of a segment.
    """
    import numpy as np

    order = np.argsort(logits, kind="stable")
    logits, rows, positives = (each[order].astype(np.float64) for each in (logits, rows, positives))
    if knots is None:
        below = np.cumsum(rows)
        at = np.minimum(np.searchsorted(below, [share * below[-1] for share in _BENDS]), len(logits) - 1)
        knots = (float(logits[at[0]]), float(logits[at[1]]))
    # Centered, so that intercept and slope are fitted almost independently.
    center = float((logits * rows).sum() / rows.sum())
    terms = _terms(logits, knots, center)
    expected = np.array([0.0, 1.0, 0.0, 0.0])
    weight = 1 / np.array([10.0, _PRIOR, _PRIOR, _PRIOR]) ** 2
    theta = expected + np.array([center, 0, 0, 0])
    reached = _loss(terms, rows, positives, theta, expected, weight)
    for _ in range(_ITERATIONS):
        gradient, information = _derivatives(terms, rows, positives, theta, expected, weight)
        step = np.linalg.solve(information, gradient)
        while (loss := _loss(terms, rows, positives, theta + step, expected, weight)) > reached + 1e-12:
            step = step / 2
            if np.abs(step).max() < 1e-12:
                break
        theta, reached = theta + step, min(loss, reached)
        if np.abs(step).max() < 1e-9:
            break
    _, information = _derivatives(terms, rows, positives, theta, expected, weight)
    back = np.eye(TERMS)  # intercept = theta0 - slope · center
    back[0, 1] = -center
    covariance = back @ np.linalg.inv(information) @ back.T
    return ScoreCurve(
        tuple(map(float, back @ theta)),
        tuple(map(float, covariance.ravel())),
        knots,
        int(rows.sum()),
        int(positives.sum()),
    )


def _terms(logits: np.ndarray, knots: Sequence[float], center: float) -> np.ndarray:
    import numpy as np

    return np.stack([np.ones(len(logits)), logits - center, *(np.maximum(logits - knot, 0) for knot in knots)], axis=1)


def _loss(
    terms: np.ndarray,
    rows: np.ndarray,
    positives: np.ndarray,
    theta: np.ndarray,
    expected: np.ndarray,
    weight: np.ndarray,
) -> float:
    import numpy as np

    z = terms @ theta
    return float((rows * np.logaddexp(0, z) - positives * z).sum() + (weight * (theta - expected) ** 2).sum() / 2)


def _derivatives(
    terms: np.ndarray,
    rows: np.ndarray,
    positives: np.ndarray,
    theta: np.ndarray,
    expected: np.ndarray,
    weight: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    p = 1 / (1 + np.exp(-np.clip(terms @ theta, -500, 500)))
    gradient = terms.T @ (positives - rows * p) - weight * (theta - expected)
    information = (terms * (rows * p * (1 - p))[:, None]).T @ terms + np.diag(weight)
    return gradient, information
