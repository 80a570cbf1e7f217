"""The contract of the places that an erasure empties: each counts, removes and then proves that nothing is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol


@dataclass(frozen=True)
class ErasureRequest:
    """What is to be erased.

    Attributes:
        erasure_id: Of `ledger.erasures`.
        kind: `erase` a subject's rows, or `purge` all rows of the partitions.
        why: As it was requested; without the subject.
        columns: Pipeline → the column of its features that names the subject.
        subjects: Pipeline → what stands in that column for the subject, as text; none for a purge.
        partitions: Pipeline → the partitions concerned: from `ledger.erased_partitions`.
        tokens: Pipeline → the subject's keyed hashes, by which a hold on it is found.
    """

    erasure_id: str
    kind: Literal["erase", "purge"]
    why: str
    columns: Mapping[str, str] = field(default_factory=dict)
    subjects: Mapping[str, Sequence[str]] = field(default_factory=dict)
    partitions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tokens: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Removed:
    """What a place had, lost and has; `remains` says what is still somewhere, and `remains_until` how long."""

    rows_before: int
    rows_removed: int
    rows_after: int
    method: str
    remains: str | None = None
    remains_until: datetime | None = None


class ErasurePlace(Protocol):
    """Somewhere a subject can be. All methods may be repeated, after a kill at any point too."""

    @property
    def name(self) -> str:
        """As `ledger.erasure_steps` and the certificate name it."""

    def count(self, request: ErasureRequest) -> int:
        """How many rows, events or files there are to remove."""

    def remove(self, request: ErasureRequest) -> Removed:
        """Remove them; where nothing is left to remove, nothing is changed."""

    def verify(self, request: ErasureRequest) -> str:
        """How it was shown that nothing is left, in words.

        Raises:
            ErasureError: something is.
        """
