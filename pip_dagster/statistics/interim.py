"""When a canary is judged by its labels, and how sure each judgement must be.

Labels arrive day by day. With a judgement on each of thirty days, an equal version is refused far more often than the
confidence says; with one after thirty days, a bad version stays live for long. So there are interim analyses of 4, 8,
16, … partitions, as in group-sequential trials. Analysis j has 1 / (j (j + 1)) of the error that is allowed. These
shares sum to 1 over any number of analyses.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST = 4  # fewer partitions hardly show how days differ


@dataclass(frozen=True)
class Interim:
    """The analysis with this `number` from 1, of the oldest `partitions`; the one after it has `next` partitions."""

    number: int
    partitions: int

    @classmethod
    def at(cls, partitions: int) -> Interim | None:
        """The last analysis that this many partitions allow; None before the first."""
        if partitions < FIRST:
            return None
        doubled = (partitions // FIRST).bit_length() - 1
        return cls(doubled + 1, FIRST << doubled)

    @property
    def next(self) -> int:
        """How many partitions the analysis after it has."""
        return 2 * self.partitions

    def confidence(self, of_all: float) -> float:
        """The confidence of this analysis' interval, so that all analyses together have `of_all`."""
        return 1 - (1 - of_all) / (self.number * (self.number + 1))
