"""The results of gates: a figure, its threshold and a sentence each, and all of them as a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal


@dataclass(frozen=True)
class GateResult:
    """One gate. `text` states what was measured and, on failure, by how much it failed.

    Where a gate cannot judge, `judged` is False, and `passed` is whether the declaration lets that pass.
    """

    name: str
    passed: bool
    figure: float | None
    threshold: float | None
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)
    judged: bool = True

    @property
    def state(self) -> Literal["passed", "failed", "unjudged"]:
        """The result in one word."""
        if not self.judged:
            return "unjudged"
        return "passed" if self.passed else "failed"


@dataclass(frozen=True)
class SegmentDifference:
    """The difference of two models on the rows with one value of a segment's column; scores are means of output 1."""

    segment: str
    value: str
    rows: int
    champion: float
    candidate: float
    difference: float
    flip_rate: float | None


@dataclass(frozen=True)
class Mover:
    """A row whose score would change most."""

    partition_key: str
    key: str
    champion: float
    candidate: float


@dataclass(frozen=True)
class GateReport:
    """Every gate that was run on a candidate for one pipeline; `champion` is None if the alias is not set."""

    pipeline: str
    model_name: str
    alias: str
    candidate: int
    champion: int | None
    partitions: tuple[str, ...]
    results: tuple[GateResult, ...]
    segments: tuple[SegmentDifference, ...]
    movers: tuple[Mover, ...]
    made_by: str
    made_at: datetime
    seconds: float

    @property
    def failed(self) -> tuple[GateResult, ...]:
        """The gates that failed."""
        return tuple(result for result in self.results if result.state == "failed")

    @property
    def unjudged(self) -> tuple[GateResult, ...]:
        """The gates that could not judge, where the declaration does not let that pass."""
        return tuple(result for result in self.results if not result.judged and not result.passed)

    @property
    def passed(self) -> bool:
        """Whether nothing refuses the candidate."""
        return not self.failed and not self.unjudged

    @property
    def refusal(self) -> str:
        """The failed gates, and those that could not judge, as text."""
        failed = [f"{result.name}: {result.text}" for result in self.failed]
        return "; ".join([*failed, *(f"{result.name} is not judged: {result.text}" for result in self.unjudged)])
