"""One partition of time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone


@dataclass(frozen=True)
class Partition:
    """A half-open range of time and the key that names it; both instants have a UTC offset."""

    key: str
    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        # Python compares two datetimes of one ZoneInfo by the wall clock, so that an hour that the clocks repeat would
        # not be later than the one before it. With a fixed offset they compare as instants.
        for name in ("start", "end"):
            moment: datetime = getattr(self, name)
            if (offset := moment.utcoffset()) is not None:
                object.__setattr__(self, name, moment.replace(tzinfo=timezone(offset), fold=0))

    @property
    def start_local(self) -> datetime:
        """Its wall-clock start, without an offset."""
        return self.start.replace(tzinfo=None)

    @property
    def end_local(self) -> datetime:
        """Its wall-clock end, without an offset."""
        return self.end.replace(tzinfo=None)
