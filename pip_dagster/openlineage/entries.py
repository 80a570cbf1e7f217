"""The ledger's entries that become runs of OpenLineage, with all that their events say."""

from __future__ import annotations

from dataclasses import dataclass

from pip_dagster.ledger.arms import Arm
from pip_dagster.ledger.checks import CheckEntry
from pip_dagster.ledger.live import LiveChange
from pip_dagster.ledger.record import ExtractionEntry, ScoringEntry


@dataclass(frozen=True)
class ExtractionRun:
    """The feature SQL ran for a partition. `checks`: what the expectations on its sources found."""

    entry: ExtractionEntry
    checks: tuple[CheckEntry, ...] = ()

    @property
    def entry_id(self) -> str:
        """The id of the ledger's row."""
        return self.entry.extraction_id


@dataclass(frozen=True)
class ScoringRun:
    """A partition was scored, or an attempt at it was blocked or failed.

    `first`: the change by which it went live at first; None for one that never did.
    """

    entry: ScoringEntry
    checks: tuple[CheckEntry, ...] = ()
    first: LiveChange | None = None

    @property
    def entry_id(self) -> str:
        """The id of the ledger's row."""
        return self.entry.scoring_id


@dataclass(frozen=True)
class LiveRun:
    """A scoring, or several arms', went live without being scored: by a rollback, or by a decision on a split.

    `scorings`: those that are live by it, the change's own first.
    """

    change: LiveChange
    scorings: tuple[ScoringEntry, ...]
    arms: tuple[Arm, ...] = ()

    @property
    def entry_id(self) -> str:
        """The id of the ledger's row."""
        return self.change.change_id


Entry = ExtractionRun | ScoringRun | LiveRun
