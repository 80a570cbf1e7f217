"""What a pipeline may ask of a model before its alias moves there: the `gates` block of defs.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MetricName = Literal["auc", "logloss", "rmse", "poisson_deviance"]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Labels(_Declared):
    """Where the outcomes are from which it is seen how good the scores were."""

    sql: str = Field(description="A file beside defs.yaml: one SELECT over the declared sources, bound like features.")
    outcome: str = Field(description="The column that holds what came of it; NULL where it is not known.")
    key: tuple[str, ...] = Field(default=(), description="Columns that name the scored row; features.key when absent.")


class Gates(_Declared):
    """Thresholds; each only counts where its gate applies."""

    partitions: int = Field(default=7, ge=1, le=366, description="How many of the newest live partitions are replayed.")
    decision: str | None = Field(
        default=None,
        description="SQL over the scored row; by the task when absent: `score >= 0.5`, the predicted class, none.",
    )
    max_flip_rate: float = Field(default=0.2, ge=0, le=1, description="The share of decisions that may change.")
    max_score_psi: float = Field(default=0.25, ge=0, description="How far the distribution of scores may move.")
    segments: tuple[str, ...] = Field(default=(), description="Feature columns by whose values rows are told apart.")
    labels: Labels | None = None
    metric: MetricName | None = Field(default=None, description="How good scores are; by the task when absent.")
    min_gain: float = Field(default=0.0, description="The worst allowed difference to the champion, over all rows.")
    min_segment_gain: float = Field(default=-0.02, description="The same within each segment.")
    min_segment_rows: int = Field(default=200, ge=1, description="Labelled rows from which a segment is judged.")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Of the interval around a difference.")
    min_throughput: float = Field(default=0.5, ge=0, description="Rows a second, as a share of the champion's.")
    golden_tolerance: float = Field(
        default=0.0, ge=0, description="How far golden scores may be off that another XGBoost version registered."
    )
    approvers: Literal[1, 2] = Field(default=1, description="2: a promotion names a second person.")
