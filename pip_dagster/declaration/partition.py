"""One partition of time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache


@dataclass(frozen=True)
class Partition:
    """A half-open range of time and the key that names it; both instants have a UTC offset."""

    key: str
    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        # Python compares two datetimes of one ZoneInfo by the wall clock, so that an hour that the clocks repeat would
        # not be later than the one before it. With a fixed offset they compare as instants.
        if type(self.start.tzinfo) is not timezone:
            object.__setattr__(self, "start", at_fixed_offset(self.start))
        if type(self.end.tzinfo) is not timezone:
            object.__setattr__(self, "end", at_fixed_offset(self.end))

    @property
    def start_local(self) -> datetime:
        """Its wall-clock start, without an offset."""
        return self.start.replace(tzinfo=None)

    @property
    def end_local(self) -> datetime:
        """Its wall-clock end, without an offset."""
        return self.end.replace(tzinfo=None)


def at_fixed_offset(moment: datetime) -> datetime:
    """The same instant and wall-clock time, with a fixed offset in place of a zone's rules."""
    offset = moment.utcoffset()
    return moment if offset is None else moment.replace(tzinfo=_fixed(offset), fold=0)


@lru_cache(maxsize=1024)
def _fixed(offset: timedelta) -> timezone:
    return timezone(offset)
