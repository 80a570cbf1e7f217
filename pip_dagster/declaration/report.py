"""What may be declared of the report: `monitoring.report` of defs.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from pip_dagster.declaration.strict import StrictModel


class ReportRule(StrictModel):
    """When the asset `<name>/report` is built."""

    schedule: str | None = Field(
        default=None,
        description="Cron in the time zone of the pipeline's schedule; by default an hour after that schedule, or at 6 "
        "where there is none.",
    )
    status: Literal["stopped", "running"] | None = Field(
        default=None, description="`running`: on from the first load; by default as the pipeline's schedule."
    )

    @field_validator("schedule")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("@") and len(value.split()) != 5:
            raise ValueError(f"{value!r} is not cron; expected five fields such as '0 7 * * *'")
        return value
