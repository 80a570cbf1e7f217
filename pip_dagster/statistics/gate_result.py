"""The results of gates: a figure, its threshold and a sentence each, and all of them as a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class GateResult:
    """One gate. `text` states what was measured and, on failure, by how much it failed."""

    name: str
    passed: bool
    figure: float | None
    threshold: float | None
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)


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
        return tuple(result for result in self.results if not result.passed)

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return not self.failed

    @property
    def refusal(self) -> str:
        """The failed gates as text."""
        return "; ".join(f"{result.name}: {result.text}" for result in self.failed)
