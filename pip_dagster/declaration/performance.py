"""How good the scores must be once their labels are known: `monitoring.performance` of defs.yaml."""

from __future__ import annotations

from pydantic import Field

from pip_dagster.declaration.strict import StrictModel


class PerformanceRules(StrictModel):
    """By which figure performance is judged, and which loss raises an alarm."""

    metric: str | None = Field(
        default=None, description="The figure that is judged, such as `auc` or `recall.late`; by the task when absent."
    )
    max_loss: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="The loss that is allowed: a share of what the reference gains over chance, or of the reference "
        "itself where chance has no value.",
    )
    false_alarms: float = Field(
        default=0.01,
        gt=0,
        le=0.2,
        description="The probability of a false alarm on a partition, over all rows, segments and rules together.",
    )
    segments: tuple[str, ...] | None = Field(
        default=None,
        description="Feature columns whose values divide rows; those of monitoring or else of gates when absent.",
    )
    query: str | None = Field(default=None, description="Of a ranking model: the feature column that names the query.")
