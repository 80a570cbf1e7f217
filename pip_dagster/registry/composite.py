"""A version that consists of other versions: which scores which rows, and how several scores become one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, FiniteFloat, model_validator

from pip_dagster.registry.booster_signature import BoosterSignature, Record

# The column of a scored row that says which segment's model scored it.
SEGMENT_COLUMN = "model_segment"

Combine = Literal["score", "margin"]
Unmatched = Literal["error", "quarantine"]


class Member(Record):
    """A version whose model file was copied: `file` lies in the composite's folder, under its own digest.

    `alias` named the version when it was composed, if any did. `manifest_digest` is the origin's.
    """

    file: str
    model_name: str
    version: int
    alias: str | None = None
    manifest_digest: str
    signature: BoosterSignature

    def __str__(self) -> str:
        return f"{self.model_name} v{self.version}"


class Term(Record):
    """A member's part in a mean: its number among `Composite.members`, and its weight as given."""

    member: int = Field(ge=0)
    weight: FiniteFloat = Field(default=1.0, gt=0)


class Segment(Record):
    """The rows for which `when` is the first condition that holds (None: all others), and the models for them."""

    name: str
    when: str | None
    terms: tuple[Term, ...] = Field(min_length=1)


class Composite(Record):
    """How members score together.

    An ensemble is one segment without a condition. `combine`: whether a mean is over scores or over margins (the scores
    before the objective's link function). `columns`: those that the conditions read, column → kind of SQL type.
    `unmatched`: the fate of a row for which no condition holds, if there is no segment for the others.
    """

    members: tuple[Member, ...] = Field(min_length=1)
    segments: tuple[Segment, ...] = Field(min_length=1)
    combine: Combine = "score"
    columns: dict[str, str] = {}
    unmatched: Unmatched | None = None

    @model_validator(mode="after")
    def _whole(self) -> Composite:
        last = self.segments[-1]
        if any(segment.when is None for segment in self.segments[:-1]):
            raise ValueError("only the last segment may have no condition")
        if (last.when is None) == (self.unmatched is not None):
            raise ValueError("`unmatched` is required if no segment takes all other rows, and forbidden otherwise")
        if any(term.member >= len(self.members) for segment in self.segments for term in segment.terms):
            raise ValueError("a segment names a member that does not exist")
        return self

    @property
    def routes(self) -> bool:
        """Whether rows go to different segments; then the matrix has a last column, the segment's number."""
        return any(segment.when is not None for segment in self.segments)

    def users(self, segment: Segment) -> frozenset[int]:
        """The members that score the rows of a segment."""
        return frozenset(term.member for term in segment.terms)
