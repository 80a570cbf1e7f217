"""When partitions close and when they are expected to be live, from the declaration alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from pip_dagster.declaration.cron import Cron
from pip_dagster.declaration.every import LONGEST
from pip_dagster.declaration.grid import closed_partitions, grid_end
from pip_dagster.flow.closed import Closed

if TYPE_CHECKING:
    from pip_dagster.declaration.spec import Partitions, PipelineSpec

# What a run may take after its tick, as a share of the partition's length, within two bounds.
_WARN = (12, timedelta(minutes=10), timedelta(hours=2))
_FAIL = (4, timedelta(minutes=30), timedelta(hours=6))


def closed_since(declared: Partitions, since: datetime, now: datetime) -> list[Closed]:
    """The closed partitions that start at an instant or later, oldest first.

    What it costs depends on how many there are, and not on how long the grid is.
    """
    offset = declared.end_offset
    begin = min(since, now) - (abs(offset) + 2) * LONGEST[declared.every]
    start = max(begin.astimezone(declared.zone).replace(tzinfo=None), _naive(declared.start))
    endless = {"start": start, "end": None, "end_offset": max(0, offset)}
    end = grid_end(declared)
    if end is not None:  # all that are before it have closed by then
        now = min(now, end + (abs(offset) + 2) * LONGEST[declared.every])
    listed = closed_partitions(declared.model_copy(update=endless), now)
    if not listed:
        return []
    bounds = [listed[0].start, *(partition.end for partition in listed)]
    return [
        Closed(partition, bounds[max(0, i + 1 - offset)])
        for i, partition in enumerate(listed[: max(0, len(listed) + min(0, offset))])
        if partition.start >= since and (end is None or partition.end <= end)
    ]


def expected_by(spec: PipelineSpec, closed_at: datetime) -> tuple[datetime | None, datetime] | None:
    """When a partition that is not live yet is worth a warning, and when it is late; None where nothing is declared.

    `monitoring.freshness` counts from when it closed. Without it, some time is allowed after the next tick of the
    schedule.
    """
    if freshness := spec.monitoring.freshness if spec.monitoring else None:
        warn = None if freshness.warn_after is None else closed_at + freshness.warn_after
        return warn, closed_at + freshness.fail_after
    if not spec.schedule:
        return None
    cron = Cron.parse(spec.schedule.cron)
    tick = cron.next_after(closed_at, ZoneInfo(spec.schedule.time_zone or spec.partitions.time_zone)) if cron else None
    if tick is None:
        return None
    warn_after, fail_after = allowances(spec.partitions)
    return tick + warn_after, tick + fail_after


def allowances(declared: Partitions) -> tuple[timedelta, timedelta]:
    """How long after its tick a run is worth a warning, and late."""
    length = timedelta(days=1) if declared.every == "day" else LONGEST[declared.every]
    warn, fail = (min(max(length / share, least), most) for share, least, most in (_WARN, _FAIL))
    return warn, fail


def longest_wait(spec: PipelineSpec) -> tuple[timedelta | None, timedelta] | None:
    """How old the newest run may be before it is worth a warning, and late; None where nothing is declared."""
    length = LONGEST[spec.partitions.every]
    if freshness := spec.monitoring.freshness if spec.monitoring else None:
        return None if freshness.warn_after is None else length + freshness.warn_after, length + freshness.fail_after
    cron = Cron.parse(spec.schedule.cron) if spec.schedule else None
    gap = cron.longest_gap() if cron else None
    if gap is None:
        return None
    longest = max(gap + timedelta(hours=1), length)  # an hour that the clocks add
    warn, fail = allowances(spec.partitions)
    return longest + warn, longest + fail


def _naive(at: object) -> datetime:
    assert isinstance(at, datetime)  # the declaration's validator leaves no date
    return at
