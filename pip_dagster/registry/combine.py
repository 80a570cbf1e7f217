"""From several models' scores to one: the arithmetic of an ensemble, and where it can be explained."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pip_dagster.registry.composite import Composite

if TYPE_CHECKING:
    import numpy as np

_IDENTITY = (
    *("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror", "reg:linear"),
    *("reg:quantileerror", "reg:expectileerror", "binary:logitraw"),
)
# The function from margin to score; other objectives have one that is not known here.
LINKS = (
    dict.fromkeys(_IDENTITY, "identity")
    | dict.fromkeys(("binary:logistic", "reg:logistic"), "logistic")
    | dict.fromkeys(("count:poisson", "reg:gamma", "reg:tweedie"), "exponential")
    | dict.fromkeys(("multi:softprob", "multi:softmax"), "softmax")
)
# Objectives that predict one thing, so that their scores may stand for one another; others only for themselves.
_FAMILIES = (
    ("binary:logistic", "reg:logistic"),
    ("multi:softprob", "multi:softmax"),
    ("reg:squarederror", "reg:linear", "reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror"),
    ("count:poisson", "reg:gamma", "reg:tweedie"),
)


def family(objective: str) -> tuple[str, ...]:
    """The objectives whose scores mean the same as this one's."""
    return next((names for names in _FAMILIES if objective in names), (objective,))


def mean(values: "Sequence[np.ndarray]", weights: Sequence[float]) -> "np.ndarray":
    """(w1·v1 + w2·v2 + …) / (w1 + w2 + …) in float64, from left to right."""
    import numpy as np

    total = np.zeros(values[0].shape, dtype=np.float64)
    for value, weight in zip(values, weights, strict=True):
        total += value.astype(np.float64) * weight
    return total / sum(weights)


def linked(margin: "np.ndarray", objective: str) -> "np.ndarray":
    """Scores of float64 margins, (rows,) or (rows, outputs), by the objective's link function; float64."""
    import numpy as np

    link = LINKS[objective]
    if link == "logistic":
        with np.errstate(over="ignore"):  # exp(large) is infinite, and the score 0
            return 1.0 / (1.0 + np.exp(-margin))
    if link == "exponential":
        return np.exp(margin)
    if link == "softmax":
        powers = np.exp(margin - margin.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    return margin


def is_additive(composite: Composite) -> bool:
    """Whether contributions of the members add up to the composite's: a mean of probabilities is no sum of anything."""
    return all(
        len(segment.terms) == 1
        or composite.combine == "margin"
        or LINKS.get(composite.members[segment.terms[0].member].signature.objective) == "identity"
        for segment in composite.segments
    )
