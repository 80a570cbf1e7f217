"""What a model must show before its alias moves to it: the `gates` block of defs.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pip_dagster.declaration.labels import Labels
from pip_dagster.declaration.strict import Columns, StrictModel

MetricName = Literal["auc", "logloss", "rmse", "poisson_deviance", "multi_logloss", "accuracy", "macro_f1", "ovr_auc"]

# Former keys, whose thresholds were absolute, and what took their place.
_REPLACED = {
    "min_gain": "the loss that is allowed is `max_loss`, a share of what the champion gains over the base rate",
    "min_segment_gain": "a segment may lose twice the loss that `max_loss` allows over all rows",
    "min_segment_rows": "a segment is judged with 20 rows of its scarcest outcome and 10 units",
}


class Gates(StrictModel):
    """The thresholds; each matters only where its gate applies."""

    partitions: int = Field(default=7, ge=1, le=366, description="How many of the newest live partitions are replayed.")
    decision: str | None = Field(
        default=None,
        description="SQL over the scored row. When absent, the BOOLEAN `decisions`; without any, the default of the "
        "task: a probability of 0.5, the predicted class, or none.",
    )
    max_flip_rate: float = Field(default=0.2, ge=0, le=1, description="The share of decisions that may change.")
    max_score_psi: float = Field(
        default=0.25, ge=0, description="How far the distribution of scores may move, beyond noise."
    )
    segments: tuple[str, ...] = Field(default=(), description="Feature columns whose values divide rows into segments.")
    unit: Columns = Field(
        default=(),
        description="Feature columns that identify a unit, such as a customer, whose rows are not independent. When "
        "absent, `labels.unit`, the unit of a split, or features.key without dates.",
    )
    labels: Labels | None = Field(
        default=None, description="The former place of the top-level `labels`; declare one of the two."
    )
    metric: MetricName | None = Field(
        default=None, description="The measure of how good scores are; the default depends on the task."
    )
    max_loss: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="The loss that is allowed, as a share of what the champion gains over the base rate; in a segment "
        "twice that.",
    )
    strict: bool = Field(
        default=False, description="Promote only if a loss beyond `max_loss` is excluded; needs 16 times the labels."
    )
    unjudged: Literal["refuse", "pass"] = Field(
        default="refuse", description="What happens where the labels are too few to judge."
    )
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Of the interval around a difference.")
    min_throughput: float | None = Field(
        default=None,
        ge=0,
        description="Rows per second of CPU time, as a share of the champion's. When absent, it is only reported.",
    )
    golden_tolerance: float = Field(
        default=0.0,
        ge=0,
        description="How far golden scores may be off in a version that was registered with another XGBoost version.",
    )
    approvers: Literal[1, 2] = Field(default=1, description="2: a promotion must name a second person.")

    @model_validator(mode="before")
    @classmethod
    def _no_former_key(cls, value: object) -> object:
        if isinstance(value, dict) and (former := [name for name in _REPLACED if name in value]):
            listed = "; ".join(f"`{name}`: {_REPLACED[name]}" for name in former)
            raise ValueError(f"{listed}. Remove {', '.join(former)}; docs/declaration.md#gates has the defaults")
        return value

    @model_validator(mode="after")
    def _columns_once(self) -> Gates:
        if len({name.lower() for name in self.unit}) != len(self.unit):
            raise ValueError(f"unit {list(self.unit)} names a column twice")
        return self
