"""What `audit verify` finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """The first thing that is wrong. `seq` is None where an entry is missing rather than wrong."""

    seq: int | None
    kind: str
    message: str

    def __str__(self) -> str:
        """The entry and what is wrong with it."""
        return self.message if self.seq is None else f"entry {self.seq}: {self.message}"
