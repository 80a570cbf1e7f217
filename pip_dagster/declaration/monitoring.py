"""What may be declared of monitoring: `monitoring: {}` is enough for any pipeline."""

from __future__ import annotations

from pydantic import Field

from pip_dagster.declaration.performance import PerformanceRules
from pip_dagster.declaration.report import ReportRule
from pip_dagster.declaration.strict import StrictModel


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
