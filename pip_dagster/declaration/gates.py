"""What a model must show before its alias moves to it: the `gates` block of defs.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pip_dagster.declaration.strict import StrictModel

MetricName = Literal["auc", "logloss", "rmse", "poisson_deviance"]


class Labels(StrictModel):
    """Where to find the outcomes that scores are compared with."""

    sql: str = Field(description="A file beside defs.yaml: one SELECT over the declared sources, bound like features.")
    outcome: str = Field(description="The column that holds the outcome; NULL where it is not known.")
    key: tuple[str, ...] = Field(default=(), description="Columns that name the scored row; features.key when absent.")


class Gates(StrictModel):
    """The thresholds; each matters only where its gate applies."""

    partitions: int = Field(default=7, ge=1, le=366, description="How many of the newest live partitions are replayed.")
    decision: str | None = Field(
        default=None,
        description="SQL over the scored row. The default depends on the task: `score >= 0.5`, the predicted "
        "class, or none.",
    )
    max_flip_rate: float = Field(default=0.2, ge=0, le=1, description="The share of decisions that may change.")
    max_score_psi: float = Field(default=0.25, ge=0, description="How far the distribution of scores may move.")
    segments: tuple[str, ...] = Field(default=(), description="Feature columns whose values divide rows into segments.")
    labels: Labels | None = None
    metric: MetricName | None = Field(
        default=None, description="The measure of how good scores are; the default depends on the task."
    )
    min_gain: float = Field(default=0.0, description="The worst allowed difference to the champion, over all rows.")
    min_segment_gain: float = Field(default=-0.02, description="The worst allowed difference within a segment.")
    min_segment_rows: int = Field(default=200, ge=1, description="Labelled rows a segment needs to be judged.")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Of the interval around a difference.")
    min_throughput: float = Field(default=0.5, ge=0, description="Rows per second, as a share of the champion's.")
    golden_tolerance: float = Field(
        default=0.0,
        ge=0,
        description="How far golden scores may be off in a version that was registered with another XGBoost version.",
    )
    approvers: Literal[1, 2] = Field(default=1, description="2: a promotion must name a second person.")
