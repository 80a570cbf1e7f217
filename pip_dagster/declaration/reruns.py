"""What a pipeline may declare about reruns: what a change makes stale, and how often a failure is retried."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from pip_dagster.declaration.durations import Duration
from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.strict import StrictModel


class Recent(StrictModel):
    """Some of the partitions that a change affects: the newest ones, or those from a day on."""

    last: int | None = Field(default=None, ge=1, description="That many partitions, the newest ones.")
    since: date | None = Field(default=None, description="Partitions that begin on this day or later.")

    @model_validator(mode="after")
    def _one(self) -> Recent:
        if (self.last is None) == (self.since is None):
            raise ValueError("set exactly one of `last` and `since`")
        return self


def _kind_of_reach(value: Any) -> str:
    if isinstance(value, Mapping | Recent):
        return "some"
    return "word" if value in ("none", "all") else ""


# Discriminated before validation, so that a mistake is reported for the kind that was meant, not for both.
Reach = Annotated[
    Annotated[Literal["none", "all"], Tag("word")] | Annotated[Recent, Tag("some")],
    Discriminator(
        _kind_of_reach,
        custom_error_type="reach",
        custom_error_message="Input should be none, all, {last: 7} or {since: 2024-01-01}",
    ),
]


def reaches(reach: Reach, partition: Partition, from_end: int) -> bool:
    """Whether a change with this reach applies to a partition; `from_end`: 1 for the newest of the grid."""
    if isinstance(reach, str):
        return reach == "all"
    if reach.last is not None:
        return from_end <= reach.last
    return reach.since is not None and partition.start_local.date() >= reach.since


class IgnoreAfter(StrictModel):
    """Late rows matter for some days only."""

    ignore_after: Duration = Field(
        description="How long after a partition's end (its start with `end_offset: 1`) a change still matters."
    )


class Reruns(StrictModel):
    """Which stored partitions a change makes stale, and how often a failure is retried."""

    promotion: Reach = Field(
        default="none",
        description="Partitions to rescore when the alias moves to another version: `none`, `all`, `{last: N}` or "
        "`{since: DATE}`.",
    )
    declaration: Reach = Field(
        default="all", description="The same when feature SQL, decisions, explanations or expectations change."
    )
    attempts: int = Field(default=3, ge=1, le=1000, description="How often a partition is tried with the same inputs.")
    back_off: Duration = Field(
        default=timedelta(minutes=10), description="The wait after a first failure; each further one doubles it."
    )
