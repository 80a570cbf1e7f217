"""What may be declared of monitoring: `monitoring: {}` is enough for any pipeline."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pip_dagster.declaration.durations import Duration
from pip_dagster.declaration.performance import PerformanceRules
from pip_dagster.declaration.report import ReportRule
from pip_dagster.declaration.retrain import Retrain
from pip_dagster.declaration.strict import Columns, StrictModel

ReferenceName = Literal["training", "previous", "season"]

_SHORTEST = timedelta(minutes=1)  # what Dagster's freshness policies allow


class Freshness(StrictModel):
    """How long after it closed a partition has to be live."""

    fail_after: Duration = Field(description="From then on a partition that is not live is late.")
    warn_after: Duration | None = Field(default=None, description="From then on it is worth a warning.")

    @model_validator(mode="after")
    def _in_order(self) -> Freshness:
        shortest = self.fail_after if self.warn_after is None else self.warn_after
        if shortest < _SHORTEST:
            raise ValueError(f"{shortest.total_seconds():g} s is too short; expected at least '1 minute'")
        if self.warn_after is not None and self.warn_after >= self.fail_after:
            raise ValueError("`warn_after` must be shorter than `fail_after`")
        return self


class Monitoring(StrictModel):
    """How the distributions of features and scores are watched."""

    history: int = Field(
        default=28, ge=14, le=366, description="How many partitions before a window show what is usual."
    )
    false_alarms: float = Field(
        default=0.01,
        gt=0,
        le=0.2,
        description="The probability of a false alarm on a partition, over all columns and rules together.",
    )
    psi: float = Field(
        default=0.1,
        gt=0,
        description="The least difference from training that can raise an alarm: PSI beyond noise; half of it for a "
        "week and longer.",
    )
    missing: float = Field(
        default=0.05, gt=0, le=1, description="By how much a column's share of missing values must rise for an alarm."
    )
    unseen: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="By how much its share of values that training had never seen must rise for an alarm.",
    )
    references: tuple[ReferenceName, ...] = Field(
        default=("training", "previous", "season"),
        description="What each window is compared with: the training sample, the partitions before the window, the "
        "same window one `season` before. An alarm differs from each of them that exists.",
    )
    season: Duration = Field(
        default=timedelta(weeks=52), description="How far back the window of the same season lies, in whole weeks."
    )
    segments: Columns = Field(
        default=(),
        description="Feature columns by whose values scores, decisions and features are also profiled; drift of scores "
        "and decisions is judged in each. At most 50 values of each; the others count as one.",
    )
    estimates: bool = Field(
        default=True,
        description="Whether performance is estimated before labels arrive, where labels are declared and the task has "
        "an estimator.",
    )
    performance: PerformanceRules = Field(
        default=PerformanceRules(), description="Where labels are declared: how good scores were."
    )
    retrain: Retrain | None = Field(
        default=None, description="The job or command that starts while an alarm is open; none by default."
    )
    freshness: Freshness | None = Field(
        default=None,
        description="When a partition is late; by default some time after the schedule's tick, never without a "
        "schedule.",
    )
    report: ReportRule = Field(default=ReportRule(), description="When the report is built.")

    @field_validator("season")
    @classmethod
    def _whole_days(cls, value: timedelta) -> timedelta:
        if value < timedelta(days=1) or value % timedelta(days=1):
            raise ValueError("expected whole days, for example '52 weeks' or '1 week'")
        return value

    @field_validator("references")
    @classmethod
    def _some_reference(cls, value: tuple[ReferenceName, ...]) -> tuple[ReferenceName, ...]:
        if "previous" not in value:
            raise ValueError("`previous` must be among them: an alarm is a difference from the partitions before")
        return tuple(dict.fromkeys(value))
