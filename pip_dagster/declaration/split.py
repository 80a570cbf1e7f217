"""How a pipeline may part its rows between model versions: the `split` and `canary` blocks of `scoring`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

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
        raise ValueError(f"{value!r} is finer than a share can be; expected steps of 0.01%")
    if not 0 < buckets <= BUCKETS:
        raise ValueError(f"{value!r} is not a share; expected more than 0% and at most 100%")
    return int(buckets)


def _columns(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Share = Annotated[int, BeforeValidator(_share)]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(_Declared):
    """The buckets [low, high) of an arm."""

    arm: str
    low: int
    high: int


class Split(_Declared):
    """A keyed A/B split: each arm's version decides about its share of the units, the champion about the rest."""

    arms: dict[str, Share] = Field(min_length=1, description="Alias → share of the units, such as 10%.")
    salt: str = Field(min_length=1, description="What this assignment is called: another salt assigns anew.")
    unit: Annotated[tuple[str, ...], BeforeValidator(_columns)] = Field(
        default=(), description="The columns by which rows are assigned, such as a customer; features.key when absent."
    )

    @field_validator("arms")
    @classmethod
    def _within_the_whole(cls, arms: dict[str, int]) -> dict[str, int]:
        if (total := sum(arms.values())) > BUCKETS:
            raise ValueError(f"the shares of {', '.join(arms)} sum to {total * 100 / BUCKETS:g}%; at most 100% may")
        return arms

    @model_validator(mode="after")
    def _columns_once(self) -> Split:
        if len({name.lower() for name in self.unit}) != len(self.unit):
            raise ValueError(f"unit {list(self.unit)} names a column twice")
        return self

    @property
    def kind(self) -> str:
        """What the declaration calls it."""
        return "split"

    @property
    def label(self) -> str:
        """Kind and salt, by which the ledger's live changes name it."""
        return f"{self.kind} {self.salt!r}"

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Each arm's buckets, in the declared order from 0; those beyond the last are the champion's."""
        found: list[Range] = []
        low = 0
        for arm, share in self.arms.items():
            found.append(Range(arm=arm, low=low, high=low + share))
            low += share
        return tuple(found)


class CanaryGate(_Declared):
    """How far a canary may be from the champion, on the same rows of a partition, before it is stopped."""

    max_flip_rate: float = Field(default=0.2, ge=0, le=1, description="The share of decisions that may differ.")
    max_score_psi: float = Field(default=0.25, ge=0, description="How far apart the distributions of scores may be.")
    max_mean_shift: float | None = Field(
        default=None, ge=0, description="How far apart the means may be, in the champion's standard deviations."
    )
    min_rows: int = Field(default=1, ge=1, description="Rows of a partition from which it is judged.")


class Canary(Split):
    """A split that stops by itself: an arm whose gate fails on a partition is live for none of it, nor later ones."""

    gate: CanaryGate = CanaryGate()

    @property
    def kind(self) -> str:
        """What the declaration calls it."""
        return "canary"
