"""Recorded scorings, scored again and compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.api.shown import Shown, ShownTable

if TYPE_CHECKING:
    from pip_dagster.replay.replay import Replay


@dataclass(frozen=True, repr=False)
class Replays(Shown):
    """The result of each replayed scoring: those of arms too where a partition is split.

    Attributes:
        pipeline: its name.
        results: one for each scoring, in the order of time.
    """

    pipeline: str
    results: tuple[Replay, ...]

    @property
    def identical(self) -> bool:
        """Whether every scoring was replayed and equals what is stored, to the bit."""
        return all(each.verdict == "identical" for each in self.results)

    def __iter__(self) -> Iterator[Replay]:
        return iter(self.results)

    def _table(self) -> ShownTable:
        rows = [
            (
                each.entry.partition_key,
                f"v{each.entry.model_version}",
                each.verdict,
                each.comparison.compared if each.comparison else None,
                "; ".join(each.reasons),
            )
            for each in self.results
        ]
        return ShownTable(f"{self.pipeline}: replayed", ("partition", "version", "verdict", "rows", "why"), rows)
