"""Live partitions as labels and gates see them: when they are, which scoring is live and which features it read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Revision:
    """Stored features of a partition: which revision, in which table."""

    revision: str
    table: str


@dataclass(frozen=True)
class LivePartition:
    """A partition with its live scoring; `revisions` are the features it was scored with, then any newer ones.

    `rows`: how many the scoring has.
    """

    key: str
    start: datetime
    end: datetime
    scoring_id: str
    scores_table: str
    rows: int
    revisions: tuple[Revision, ...] = ()
