"""One partition of time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone


@dataclass(frozen=True)
class Partition:
    """A half-open stretch of time and the key that names it; both instants carry an offset."""

    key: str
    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        # Python compares two datetimes of one ZoneInfo by the wall clock, by which an hour that the clocks repeat is no
        # later than the one before it. With the offset fixed they compare as instants.
        for name in ("start", "end"):
            moment: datetime = getattr(self, name)
            if (offset := moment.utcoffset()) is not None:
                object.__setattr__(self, name, moment.replace(tzinfo=timezone(offset), fold=0))

    @property
    def start_local(self) -> datetime:
        """Its wall-clock beginning, without an offset."""
        return self.start.replace(tzinfo=None)

    @property
    def end_local(self) -> datetime:
        """Its wall-clock end, without an offset."""
        return self.end.replace(tzinfo=None)
