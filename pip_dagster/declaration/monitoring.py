"""What may be declared of monitoring: `monitoring: {}` is enough for any pipeline."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from pip_dagster.declaration.performance import PerformanceRules
from pip_dagster.declaration.strict import StrictModel


class ReportRule(StrictModel):
    """When the asset `<name>/report` is built."""

    schedule: str | None = Field(
        default=None,
        description="Cron in the time zone of the pipeline's schedule; by default an hour after that schedule, or at 6 "
        "where there is none.",
    )
    status: Literal["stopped", "running"] | None = Field(
        default=None, description="running: on from the first load; by default as the pipeline's schedule."
    )

    @field_validator("schedule")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("@") and len(value.split()) != 5:
            raise ValueError(f"{value!r} is not cron; expected five fields such as '0 7 * * *'")
        return value


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
    estimates: bool = Field(
        default=True,
        description="Whether performance is estimated before labels arrive, where labels are declared and the task has "
        "an estimator.",
    )
    performance: PerformanceRules = Field(
        default=PerformanceRules(), description="Where labels are declared: how good scores were."
    )
    report: ReportRule = Field(default=ReportRule(), description="When the report is built.")
