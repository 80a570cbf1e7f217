"""Calibration: from a model's score to a probability, fitted after training on data that the model has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, model_validator

if TYPE_CHECKING:
    import numpy as np


class Calibration(BaseModel):
    """One of two methods, for a model of one output.

    `platt` (Platt 1999): 1 / (1 + exp(-(slope · logit(score) + intercept))), for a score that is a probability.
    `isotonic` (Zadrozny and Elkan 2002): piecewise linear through the points (x, y), flat beyond the first and last;
    scikit-learn gives them as `X_thresholds_` and `y_thresholds_`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["platt", "isotonic"]
    slope: FiniteFloat | None = None
    intercept: FiniteFloat | None = None
    x: tuple[FiniteFloat, ...] = ()
    y: tuple[FiniteFloat, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Calibration:
        if self.method == "platt":
            if self.slope is None or self.intercept is None or self.x or self.y:
                raise ValueError("platt takes `slope` and `intercept` only")
            return self
        if self.slope is not None or self.intercept is not None or len(self.x) != len(self.y) or not self.x:
            raise ValueError("isotonic takes `x` and `y` only, of the same length")
        if any(b <= a for a, b in zip(self.x, self.x[1:], strict=False)):
            raise ValueError("isotonic: `x` must ascend")
        if any(b < a for a, b in zip(self.y, self.y[1:], strict=False)):
            raise ValueError("isotonic: `y` must not descend")
        return self

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated scores, float32, of the scores' shape; NaN stays NaN."""
        import numpy as np

        raw = scores.astype(np.float64)
        if self.method == "isotonic":
            with np.errstate(over="ignore"):  # an infinite score refuses the partition
                return np.interp(raw, self.x, self.y).astype(np.float32)
        assert self.slope is not None and self.intercept is not None
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # a score of 0 or 1 has an infinite logit
            logit = np.log(raw) - np.log1p(-raw)
            return (1.0 / (1.0 + np.exp(-(self.slope * logit + self.intercept)))).astype(np.float32)
