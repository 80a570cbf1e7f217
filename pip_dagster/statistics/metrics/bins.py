"""Fixed fine bins of scores and outcomes, the same for every model, so that counts of any partitions add up.

A bin is 0.01 wide: of probabilities in log-odds, of margins as they are, of positive numbers in their logarithm, and of
scores without a scale in the logarithm of 1 + |score| / 1e-6. Rows of one bin count as ties.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Scale = Literal["probability", "margin", "positive", "score"]

WIDTH = 0.01
_MARGIN = 88.0  # about the log-odds of the least float32
_LOG = 23.5  # of 1.6e10
_LOWEST = round(_LOG / WIDTH) + 1  # so that 0 has the least code
# Probabilities are clipped here in losses, as XGBoost and the gates do.
LEAST_PROBABILITY = 1e-7
LEAST_MEAN = 1e-12
EQUAL_BINS = 10


def bin_sql(x: str, scale: Scale) -> str:
    """SQL of the bin's code, an INTEGER that ascends with `x`, a DOUBLE that is not NULL."""
    if scale == "probability":
        p = f"least(greatest({x}, 1e-38), 1 - 4e-8)"  # float32 has no number nearer to 1
        return f"floor(ln({p} / (1 - {p})) / {WIDTH})::INTEGER"
    if scale == "margin":
        return f"floor(least(greatest({x}, -{_MARGIN}), {_MARGIN}) / {WIDTH})::INTEGER"
    if scale == "positive":
        inside = f"floor(least(greatest(ln(greatest({x}, 1e-300)), -{_LOG}), {_LOG}) / {WIDTH})::INTEGER + {_LOWEST}"
        return f"CASE WHEN {x} <= 0 THEN 0 ELSE {inside} END"
    return f"(sign({x}) * floor(ln(1 + least(abs({x}), 1e300) / 1e-6) / {WIDTH}))::INTEGER"


def middle(codes: np.ndarray, scale: Scale) -> np.ndarray:
    """The value in the middle of each bin: of log-odds the probability."""
    import numpy as np

    at = (codes + 0.5) * WIDTH
    if scale in ("probability", "margin"):
        return 1 / (1 + np.exp(-at))
    if scale == "positive":
        return np.where(codes == 0, 0.0, np.exp(at - _LOWEST * WIDTH))
    return np.sign(codes) * np.expm1(np.abs(codes) * WIDTH) * 1e-6


def probability_sql(x: str, scale: str) -> str:
    """SQL of the probability that a binary model's score stands for."""
    return f"1 / (1 + exp(-least(greatest({x}, -700), 700)))" if scale == "margin" else x
