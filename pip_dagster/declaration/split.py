"""How a pipeline may share its units between model versions: the `split` and `canary` blocks of `scoring`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pip_dagster.declaration.gates import MetricName
from pip_dagster.declaration.strict import Columns, StrictModel

# Shares come in steps of 0.01%.
BUCKETS = 10_000


_PERCENT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")


def _share(value: object) -> object:
    """A percentage as a number of buckets."""
    match = _PERCENT.match(value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"{value!r} is not a share; expected a percentage such as 10% or 2.5%")
    buckets = Decimal(match[1]) * BUCKETS / 100
    if buckets != int(buckets):
        raise ValueError(f"{value!r} is too fine for a share; expected steps of 0.01%")
    if not 0 < buckets <= BUCKETS:
        raise ValueError(f"{value!r} is not a share; expected more than 0% and at most 100%")
    return int(buckets)


Share = Annotated[int, BeforeValidator(_share, json_schema_input_type=str)]


class Range(StrictModel):
    """The buckets [low, high) of an arm."""

    arm: str
    low: int
    high: int


class Split(StrictModel):
    """A keyed A/B split: each arm's version is live for its share of the units, the champion for the rest."""

    arms: dict[str, Share] = Field(
        min_length=1,
        description="Alias → share of the units, such as `10%`, in steps of 0.01%; together at most 100%. The "
        "champion has the rest.",
    )
    salt: str = Field(
        min_length=1, description="The name of this assignment; units are assigned differently with another salt."
    )
    unit: Columns = Field(
        default=(), description="The columns that identify a unit, such as a customer; features.key when absent."
    )

    @field_validator("arms")
    @classmethod
    def _within_the_whole(cls, arms: dict[str, int]) -> dict[str, int]:
        if (total := sum(arms.values())) > BUCKETS:
            percent = total * 100 / BUCKETS
            raise ValueError(f"the shares of {', '.join(arms)} sum to {percent:g}%; expected at most 100%")
        return arms

    @model_validator(mode="after")
    def _columns_once(self) -> Split:
        if len({name.lower() for name in self.unit}) != len(self.unit):
            raise ValueError(f"unit {list(self.unit)} names a column twice")
        return self

    @property
    def kind(self) -> str:
        """The key that declares it."""
        return "split"

    @property
    def label(self) -> str:
        """Kind and salt, by which the ledger's live changes name it."""
        return f"{self.kind} {self.salt!r}"

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Each arm's buckets, in the declared order from 0; the champion owns those beyond the last."""
        found: list[Range] = []
        low = 0
        for arm, share in self.arms.items():
            found.append(Range(arm=arm, low=low, high=low + share))
            low += share
        return tuple(found)


class CanaryLabels(StrictModel):
    """The limit of a canary by its late labels, which `labels` finds; what is absent is as in `gates`."""

    metric: MetricName | None = Field(default=None, description="As `gates.metric`, which holds when it is absent.")
    max_loss: float | None = Field(
        default=None, gt=0, le=1, description="As `gates.max_loss`, which holds when it is absent."
    )
    confidence: float | None = Field(
        default=None, gt=0, lt=1, description="Of all analyses together; `gates.confidence` when absent."
    )


class CanaryGate(StrictModel):
    """How far a canary may deviate from the champion, on the same rows of a partition, before it is stopped."""

    max_flip_rate: float = Field(default=0.2, ge=0, le=1, description="The share of decisions that may differ.")
    max_score_psi: float = Field(default=0.25, ge=0, description="How far the distributions of scores may differ.")
    max_mean_shift: float | None = Field(
        default=None, ge=0, description="How far the means may differ, in the champion's standard deviations."
    )
    min_rows: int = Field(
        default=50, ge=1, description="Rows a partition, and a segment in it, needs for the canary to be judged."
    )
    segments: tuple[str, ...] = Field(
        default=(), description="Feature columns; the limits below hold in the rows of each of their values."
    )
    max_segment_flip_rate: float | None = Field(
        default=None, ge=0, le=1, description="As `max_flip_rate`, in each segment; twice that when absent."
    )
    max_segment_psi: float | None = Field(
        default=None, ge=0, description="As `max_score_psi`, in each segment; twice that when absent."
    )
    labels: CanaryLabels | None = Field(
        default=None,
        description="How much worse than the champion's its past scores may be, by their late labels; `{}` for the "
        "rules of `gates`.",
    )

    @property
    def segment_limits(self) -> tuple[float, float]:
        """The share of decisions that may differ in a segment, and how far its scores may."""
        flips, psi = self.max_segment_flip_rate, self.max_segment_psi
        return (
            min(2 * self.max_flip_rate, 1.0) if flips is None else flips,
            2 * self.max_score_psi if psi is None else psi,
        )


class Canary(Split):
    """A split that stops by itself: an arm that fails its gate is not live for that partition or any later one."""

    gate: CanaryGate = Field(
        default=CanaryGate(),
        description="Limits between its scores and the champion's on the same rows, judged on each partition.",
    )

    @property
    def kind(self) -> str:
        """The key that declares it."""
        return "canary"
