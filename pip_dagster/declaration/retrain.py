"""What may be declared of retraining: what is started when monitoring is in alarm, and how often."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator, model_validator

from pip_dagster.declaration.durations import Duration
from pip_dagster.declaration.strict import StrictModel

Word = Annotated[str, StringConstraints(min_length=1)]


class Retrain(StrictModel):
    """A command or a Dagster job that is started while an alarm holds. It promotes nothing."""

    when: tuple[Word, ...] = Field(
        default=("drift", "performance", "estimate"),
        min_length=1,
        description="Events, or names of rules, whose alarms start it. Warnings do not.",
    )
    command: tuple[Word, ...] = Field(
        default=(), description="A program with its arguments; it reads the alarms as JSON from its standard input."
    )
    job: Word | None = Field(default=None, description="The Dagster job to run; the tags of its run name the alarms.")
    cool_down: Duration = Field(
        default=timedelta(days=7), description="The time after a start before the next one, unless it failed."
    )
    attempts: int = Field(default=3, ge=1, le=100, description="How often it starts while the same alarms are open.")

    @field_validator("when", "command", mode="before")
    @classmethod
    def _a_list(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError("expected a list such as [drift, performance] or [program, argument], not a text")
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> Retrain:
        if bool(self.command) == bool(self.job):
            raise ValueError("takes `command: [program, argument]` or `job: NAME`, one of the two")
        return self

    @property
    def target(self) -> str:
        """What is started, in words."""
        return f"job {self.job}" if self.job else f"command {self.command[0]}"
