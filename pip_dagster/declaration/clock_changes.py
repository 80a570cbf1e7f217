"""Time zones whose clocks change in a way that a grid of partitions cannot follow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from pip_dagster.declaration.every import STEPS

_DAY = timedelta(days=1)


@lru_cache(maxsize=64)
def unfit_change(every: str, time_zone: str, start: datetime, end: datetime | None) -> str | None:
    """The change of the clocks after which a grid's keys would not name its instants; None if there is none.

    Hours and minutes must stay whole steps of the clock. A date that the clocks skip or repeat must not begin a
    partition. The rules of a time zone repeat each year, so an open grid is examined up to two years from now.
    """
    zone = ZoneInfo(time_zone)
    until = end or max(datetime.now(), start) + 731 * _DAY
    for at, before, after in _changes(zone, *(each.replace(tzinfo=zone).astimezone(UTC) for each in (start, until))):
        moved = after - before
        step = STEPS.get(every)
        if step and moved % step:
            minutes, number = abs(moved) / timedelta(minutes=1), "hours" if every == "hour" else f"times {every}"
            return f"by {at:%Y-%m-%d} its clocks move by {minutes:g} minutes, which is not a whole number of {number}"
        if not step and abs(moved) > _DAY / 2:
            around = at.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
            for date in (around + days * _DAY for days in range(-3, 3)):
                if start <= date < until and _begins(every, date) and (what := _irregular(zone, date)):
                    return f"its clocks {what} {date:%Y-%m-%d}, which begins a partition"
    return None


def _changes(zone: ZoneInfo, first: datetime, last: datetime) -> Iterator[tuple[datetime, timedelta, timedelta]]:
    """An instant within a day after each change of the offset from UTC, with the offsets before and after it."""
    at, before = first, _offset(zone, first)
    while at < last:
        at = min(at + _DAY, last)
        after = _offset(zone, at)
        if after != before:
            yield at, before, after
        before = after


def _offset(zone: ZoneInfo, at: datetime) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta(0)


def _begins(every: str, date: datetime) -> bool:
    return every == "day" or (date.isoweekday() == 7 if every == "week" else date.day == 1)


def _irregular(zone: ZoneInfo, date: datetime) -> str | None:
    first, second = (date.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first.astimezone(zone).date() != date.date():
        return "skip"
    return "repeat" if second - first > _DAY / 2 else None
