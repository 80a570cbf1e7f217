"""The declared grid of partitions without Dagster: the same keys and instants, computed faster."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from pip_dagster.declaration.partition import Partition, at_fixed_offset

if TYPE_CHECKING:
    from pip_dagster.declaration.spec import Partitions


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
    if declared.every == "hour":
        start = (at if repeated else _local(declared, at)).astimezone(UTC)
        found = _keyed(declared, *(each.astimezone(declared.zone) for each in (start, start + timedelta(hours=1))))
    else:
        bounds = _dates(declared.model_copy(update={"start": at}))
        found = _keyed(declared, next(bounds), next(bounds))
    if found.key != key or found.start_local.minute or found.start < next(_partitions(declared)).start:
        raise ValueError(f"{key!r} is not the key of a partition")
    return found


def partitions_between(declared: Partitions, start: datetime, end: datetime) -> int:
    """How many partitions of the grid lie between two of its instants, without listing them."""
    if declared.every == "hour":
        return max(0, round((end - start) / timedelta(hours=1)))
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
    if declared.every == "hour":
        yield from _hourly(declared)
        return
    bounds = _dates(declared)
    start = next(bounds)
    for end in bounds:
        yield _keyed(declared, start, end)
        start = end


def _hourly(declared: Partitions) -> Iterator[Partition]:
    """The same as `_keyed` of neighboring hours, for tens of thousands of them."""
    bounds = _hours(declared)
    first = next(bounds)
    start, repeated = at_fixed_offset(first), first.fold
    for bound in bounds:
        end = at_fixed_offset(bound)
        key = start.isoformat("-", "minutes")[: len("2024-01-01-00:00")]
        yield Partition(key + start.strftime("%z") if repeated else key, start, end)
        start, repeated = end, bound.fold


def _keyed(declared: Partitions, start: datetime, end: datetime) -> Partition:
    # The second of two hours that the clocks repeat has its offset in the key, as in Dagster's.
    repeated = declared.every == "hour" and start.fold
    return Partition(start.strftime(_format(declared) + ("%z" if repeated else "")), start, end)


def _format(declared: Partitions) -> str:
    return "%Y-%m-%d-%H:%M" if declared.every == "hour" else "%Y-%m-%d"


def _hours(declared: Partitions) -> Iterator[datetime]:
    start = _naive(declared.start)
    whole = start.replace(minute=0, second=0, microsecond=0)
    at = _local(declared, whole if whole == start else whole + timedelta(hours=1)).astimezone(UTC)
    zone, hour = declared.zone, timedelta(hours=1)
    while True:
        yield at.astimezone(zone)
        at += hour


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
