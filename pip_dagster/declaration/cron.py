"""When a cron expression ticks, without Dagster, whose import takes longer than a command may."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FARTHEST = timedelta(days=366 * 8 + 2)  # 29 February, and over a year such as 2100 that has none


@dataclass(frozen=True)
class Cron:
    """The five fields, each as the values on which it ticks. Of two restricted fields of days, either is enough."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    either_day: bool

    @classmethod
    def parse(cls, text: str) -> Cron | None:
        """The expression; None for one that only Dagster's parser understands, such as `L` for the last day."""
        fields = _NAMED.get(text.strip().lower(), text).lower().split()
        if len(fields) != 5:
            return None
        try:
            return cls(
                _values(fields[0], 0, 59),
                _values(fields[1], 0, 23),
                _values(fields[2], 1, 31),
                _values(fields[3], 1, 12, _MONTHS),
                frozenset(each % 7 for each in _values(fields[4], 0, 7, _WEEKDAYS)),
                "*" not in (fields[2], fields[4]),
            )
        except ValueError:
            return None

    def next_after(self, at: datetime, zone: ZoneInfo) -> datetime | None:
        """The first tick after an instant, in UTC; None if there is none in eight years."""
        day = at.astimezone(zone).date()
        last = day + _FARTHEST
        while day <= last:
            if self._ticks_on(day):
                for tick in self._ticks(day, zone):
                    if tick > at:
                        return tick
            day += timedelta(days=1)
        return None

    def longest_gap(self) -> timedelta | None:
        """The longest time between two ticks, by the wall clock; None if there are no two in eight years."""
        minutes = sorted(60 * hour + minute for hour in self.hours for minute in self.minutes)
        first = date(2024, 1, 1)
        days = (first + timedelta(days=i) for i in range(_FARTHEST.days))
        ticking = [day for day in days if self._ticks_on(day)]
        if len(ticking) < 2:
            return None
        within = max((later - sooner for sooner, later in pairwise(minutes)), default=0)
        between = max(pairwise(ticking), key=lambda days: days[1] - days[0])
        overnight = 24 * 60 * (between[1] - between[0]).days + minutes[0] - minutes[-1]
        return timedelta(minutes=max(within, overnight))

    def _ticks_on(self, day: date) -> bool:
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and ((of_month or of_week) if self.either_day else (of_month and of_week))

    def _ticks(self, day: date, zone: ZoneInfo) -> Iterator[datetime]:
        """In order; of an hour that the clocks repeat, both; of one that they skip, the instant after it."""
        found = {
            datetime.combine(day, time(hour, minute, fold=fold), zone).astimezone(UTC)
            for hour in self.hours
            for minute in self.minutes
            for fold in (0, 1)
        }
        yield from sorted(tick for tick in found if tick.astimezone(zone).date() == day)


def _values(field: str, low: int, high: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    """The values of a field: `*`, numbers or names, ranges, steps and lists of them.

    Raises:
        ValueError: it is none of these.
    """
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step_text = part.partition("/")
        step = int(step_text) if slash else 1
        first_text, dash, last_text = span.partition("-")
        if span == "*":
            first, last = low, high
        else:
            first = _number(first_text, names, low)
            last = _number(last_text, names, low) if dash else (high if slash else first)
        if step < 1 or not low <= first <= last <= high:
            raise ValueError(field)
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, names: tuple[str, ...], low: int) -> int:
    return names.index(text) + low if text in names else int(text)
