"""What a test of the scorecard finds: evidence with ids and dates, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Evidence:
    """One piece of evidence.

    Attributes:
        kind: What it is, such as `scoring` or `audit entry`.
        id: By which it is found again: an id of the ledger, the number of an entry, a file.
        at: Of when it is; a test's validity counts from there.
        text: What it shows.
    """

    kind: str
    id: str
    at: datetime
    text: str


@dataclass(frozen=True)
class Found:
    """The evidence of a test; without any, `why` says what is missing."""

    evidence: tuple[Evidence, ...] = ()
    why: str = ""


def missing(why: str) -> Found:
    """No evidence."""
    return Found(why=why)
