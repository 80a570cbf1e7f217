"""Where the outcomes of scored rows are: the `labels` block of defs.yaml, for gates, experiments and monitoring."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, model_validator

from pip_dagster.declaration.durations import Duration
from pip_dagster.declaration.strict import Columns, StrictModel

# The former name of `complete_after`, which is still read.
_FORMER = "mature_after"


def _former_key(schema: dict[str, Any]) -> None:
    own = schema["properties"]["complete_after"]
    schema["properties"][_FORMER] = own | {"description": "The former name of `complete_after`.", "deprecated": True}


class Labels(StrictModel):
    """Where to find the outcomes that scores are compared with, and how late they are."""

    model_config = ConfigDict(json_schema_extra=_former_key)

    sql: str = Field(description="A file beside defs.yaml: one SELECT over the declared sources, bound like features.")
    outcome: str = Field(
        description="The column that holds the outcome, or the class of a model with several; NULL where not known."
    )
    key: tuple[str, ...] = Field(default=(), description="Columns that name the scored row; features.key when absent.")
    arrives_after: Duration | None = Field(
        default=None,
        description="How long after a partition's end its first labels are there. A partition without any is overdue "
        "afterwards.",
    )
    complete_after: Duration | None = Field(
        default=None,
        description="How long after a partition's end its labels are complete. When absent, the newest partitions are "
        "left out while a clearly smaller share of their rows has labels than usual.",
    )
    unit: Columns = Field(
        default=(),
        description="Feature columns that identify a unit, such as a customer, whose rows are not independent; "
        "`gates.unit` when absent.",
    )
    rows: int = Field(
        default=50_000,
        ge=100,
        description="Gates take the newest labelled partitions until they have this many labels, and at least "
        "`gates.partitions` of them.",
    )

    @model_validator(mode="before")
    @classmethod
    def _former_name(cls, value: object) -> object:
        if not isinstance(value, dict) or _FORMER not in value:
            return value
        if "complete_after" in value:
            raise ValueError("`mature_after` is the former name of `complete_after`; use only `complete_after`")
        return {"complete_after" if key == _FORMER else key: each for key, each in value.items()}

    @model_validator(mode="after")
    def _in_order(self) -> Labels:
        if self.arrives_after and self.complete_after and self.arrives_after > self.complete_after:
            raise ValueError("`arrives_after` is longer than `complete_after`; labels arrive before they are complete")
        if len({name.lower() for name in self.unit}) != len(self.unit):
            raise ValueError(f"unit {list(self.unit)} names a column twice")
        return self
