"""The declared grid of partitions without Dagster: the same keys and instants, computed faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from pip_dagster.declaration.clock_changes import unfit_change
from pip_dagster.declaration.partition import Partition, at_fixed_offset

if TYPE_CHECKING:
    from pip_dagster.declaration.spec import Partitions

_EARLIEST = 1900  # year of a range; what is before is a mistake more likely than data


def closed_partitions(declared: Partitions, now: datetime) -> list[Partition]:
    """The partitions that can be built at `now`, oldest first.

    These are the partitions that have ended, and `end_offset` more (fewer if it is negative), up to the grid's `end`.
    """
    found: list[Partition] = []
    ended, beyond = 0, 0
    last = grid_end(declared)
    for partition in _partitions(declared):
        if partition.start > now and not found:
            return []  # before the grid begins no partition is open, whatever the offset
        if partition.end <= now:
            ended += 1
        elif len(found) >= ended + declared.end_offset:
            break
        found.append(partition)
        if last is not None and partition.end > last:
            beyond += 1
            if beyond > abs(declared.end_offset):  # enough that the offset leaves out none of the grid's own
                break
    open_to = found[: max(0, ended + declared.end_offset)]
    if last is None:
        return open_to
    return [partition for partition in open_to if partition.end <= last]


def partition_named(declared: Partitions, key: str) -> Partition:
    """The partition that a key names; that it has ended, or lies before the grid's end, is not checked.

    Raises:
        ValueError: the key names no partition of the grid.
    """
    repeated = len(key) > len("2024-01-01-00:00")
    at = datetime.strptime(key, _format(declared) + ("%z" if repeated else ""))
    if step := declared.step:
        start = (at if repeated else _local(declared, at)).astimezone(UTC)
        found = _keyed(declared, *(each.astimezone(declared.zone) for each in (start, start + step)))
    else:
        bounds = _dates(declared.model_copy(update={"start": at}))
        found = _keyed(declared, next(bounds), next(bounds))
    misplaced = step is not None and (found.start_local - datetime.min) % step
    if found.key != key or misplaced or found.start < next(_partitions(declared)).start:
        raise ValueError(f"{key!r} is not the key of a partition")
    return found


def partitions_of_range(declared: Partitions, start: date | str, end: date | str, now: datetime) -> list[Partition]:
    """The partitions that begin from `start` to `end`, both included; the grid is continued to before its start.

    Rows of before a pipeline went live are what its first model is trained on.

    Args:
        declared: the grid.
        start: a partition key, or a date or time; one without an offset is in the grid's time zone.
        end: the same; a date is the whole of it.
        now: all partitions must be ready to be built by then.

    Raises:
        ValueError: a bound is not valid, the range is empty, or it is not over; the text says what was expected.
    """
    first, last = instant(declared, start), instant(declared, end, at_end=True)
    if last < first:
        raise ValueError(f"it starts at {start} and ends before, at {end}")
    local = first.astimezone(declared.zone).replace(tzinfo=None)
    if local.year < _EARLIEST:
        raise ValueError(f"it starts before {_EARLIEST}")
    if local < _naive(declared.start) and (
        why := unfit_change(declared.every, declared.time_zone, local, _naive(declared.start))
    ):
        raise ValueError(f"{declared.time_zone} cannot have a partition for every {declared.every} of it: {why}")
    grid = declared.model_copy(update={"start": local - timedelta(days=1), "end": None})
    found, open_to = list[Partition](), _open_to(declared, now)
    for each in takewhile(lambda each: each.start <= last, _partitions(grid)):
        if each.start >= first:
            if each.end > open_to:  # at once: the range may end in 9999
                raise ValueError(f"partition {each.key} is not over; end the range before it")
            found.append(each)
    if not found:
        raise ValueError(f"no {declared.every} begins from {start} to {end}")
    return found


def _open_to(declared: Partitions, now: datetime) -> datetime:
    """The end of the last partition that can be built at `now`, whatever the grid's start and end; at least `now`."""
    if declared.end_offset <= 0:
        return now
    before = now.astimezone(declared.zone).replace(tzinfo=None) - timedelta(days=2 if declared.step else 32)
    grid = declared.model_copy(update={"start": before, "end": None})
    not_over = (each for each in _partitions(grid) if each.end > now)
    return next(islice(not_over, declared.end_offset - 1, None)).end


def instant(declared: Partitions, given: object, *, at_end: bool = False) -> datetime:
    """The bound of a range as an instant: of a key, a date or a time; of a date, its first or its last.

    Raises:
        ValueError: it is none of them, or beyond the calendar; the text says what was expected.
    """
    at = given if isinstance(given, date) else _parsed(declared, given)
    try:
        if isinstance(at, datetime):
            return (at if at.tzinfo else _local(declared, at)).astimezone(UTC)
        day = _local(declared, _naive(at) + timedelta(days=1) if at_end else _naive(at)).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"a bound is beyond the calendar; expected one from {_EARLIEST} to now") from None
    return day - timedelta(microseconds=1) if at_end else day


def _parsed(declared: Partitions, given: object) -> date:
    if isinstance(given, str):
        for form in ("%Y-%m-%d-%H:%M%z", "%Y-%m-%d-%H:%M"):
            with suppress(ValueError):
                return datetime.strptime(given, form)
        with suppress(ValueError):
            return date.fromisoformat(given) if len(given) <= len("2024-01-01") else datetime.fromisoformat(given)
    example = next(_partitions(declared)).key
    raise ValueError(f"{given!r} is no date, time or partition key; expected for example {example!r}")


def partitions_between(declared: Partitions, start: datetime, end: datetime) -> int:
    """How many partitions of the grid lie between two of its instants, without listing them."""
    if step := declared.step:
        return max(0, round((end - start) / step))
    first, last = (each.astimezone(declared.zone).date() for each in (start, end))
    if declared.every == "month":
        return max(0, 12 * (last.year - first.year) + last.month - first.month)
    return max(0, (last - first).days // (7 if declared.every == "week" else 1))


def grid_start(declared: Partitions) -> datetime:
    """When the first partition begins."""
    return next(_partitions(declared)).start


def grid_end(declared: Partitions) -> datetime | None:
    """Where the grid ends, exclusive."""
    return None if declared.end is None else _local(declared, declared.end).astimezone(UTC)


def _partitions(declared: Partitions) -> Iterator[Partition]:
    """The grid without end."""
    if step := declared.step:
        yield from _stepped(declared, step)
        return
    bounds = _dates(declared)
    start = next(bounds)
    for end in bounds:
        yield _keyed(declared, start, end)
        start = end


def _stepped(declared: Partitions, step: timedelta) -> Iterator[Partition]:
    """The same as `_keyed` of neighboring instants, for tens of thousands of them."""
    bounds = _steps(declared, step)
    first = next(bounds)
    start, repeated = at_fixed_offset(first), first.fold
    for bound in bounds:
        end = at_fixed_offset(bound)
        key = start.isoformat("-", "minutes")[: len("2024-01-01-00:00")]
        yield Partition(key + start.strftime("%z") if repeated else key, start, end)
        start, repeated = end, bound.fold


def _keyed(declared: Partitions, start: datetime, end: datetime) -> Partition:
    # The second of two times that the clocks repeat has its offset in the key, as in Dagster's.
    repeated = declared.step and start.fold
    return Partition(start.strftime(_format(declared) + ("%z" if repeated else "")), start, end)


def _format(declared: Partitions) -> str:
    return "%Y-%m-%d-%H:%M" if declared.step else "%Y-%m-%d"


def _steps(declared: Partitions, step: timedelta) -> Iterator[datetime]:
    start = _naive(declared.start)
    at = _local(declared, start + (datetime.min - start) % step).astimezone(UTC)  # the next whole one
    zone = declared.zone
    while True:
        yield at.astimezone(zone)
        at += step


def _dates(declared: Partitions) -> Iterator[datetime]:
    day = _naive(declared.start).replace(hour=0, minute=0, second=0, microsecond=0)
    if declared.every == "week":
        day += timedelta(days=-day.isoweekday() % 7)
    elif declared.every == "month" and day.day > 1:
        day = _next_month(day)
    while True:
        yield _local(declared, day)
        if declared.every == "month":
            day = _next_month(day)
        else:
            day += timedelta(days=7 if declared.every == "week" else 1)


def _next_month(day: datetime) -> datetime:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _local(declared: Partitions, at: datetime | date) -> datetime:
    """A wall-clock time; where the clocks skip it, the instant at which they do."""
    return _naive(at).replace(tzinfo=declared.zone)


def _naive(at: datetime | date) -> datetime:
    return at if isinstance(at, datetime) else datetime(at.year, at.month, at.day)
