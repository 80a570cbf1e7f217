"""From several models' scores to one: the arithmetic of an ensemble, and where it can be explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pip_dagster.registry.composite import Composite
from pip_dagster.registry.engines import objective_of
from pip_dagster.registry.engines.protocol import Link

if TYPE_CHECKING:
    import numpy as np


def mean(values: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """(w1·v1 + w2·v2 + …) / (w1 + w2 + …) in float64, from left to right."""
    import numpy as np

    total = np.zeros(values[0].shape, dtype=np.float64)
    for value, weight in zip(values, weights, strict=True):
        total += value.astype(np.float64) * weight
    return total / sum(weights)


def linked(margin: np.ndarray, link: Link | None) -> np.ndarray:
    """Scores of float64 margins, (rows,) or (rows, outputs), by the objective's link function; float64."""
    import numpy as np

    if link == "logistic":
        with np.errstate(over="ignore"):  # exp(large) is infinite, and the score 0
            return 1.0 / (1.0 + np.exp(-margin))
    if link == "exponential":
        with np.errstate(over="ignore"):  # an infinite score refuses the partition
            return np.exp(margin)
    if link == "softmax":
        powers = np.exp(margin - margin.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    assert link == "identity", "composition refuses a mean of margins without a link function"
    return margin


def is_additive(composite: Composite) -> bool:
    """Whether contributions of the members add up to the composite's; those to a mean of probabilities do not."""
    return all(
        len(segment.terms) == 1
        or composite.combine == "margin"
        or objective_of(composite.members[segment.terms[0].member].signature).link == "identity"
        for segment in composite.segments
    )
