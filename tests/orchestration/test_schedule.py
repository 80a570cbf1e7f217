"""Which partition a tick asks for, and when it asks for none."""

from datetime import datetime
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from pip_dagster.orchestration.definitions import build_definitions

NEW_YORK = "America/New_York"


def tick(tiny, moment, *, zone="UTC", **grid):
    """What the schedule answers at `moment`, local time: a partition key, or the reason for none."""
    when = datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(zone))
    tiny.declare(partitions={"time_zone": zone} | grid)
    schedule = build_definitions(tiny.pipeline()).resolve_schedule_def("orders_schedule")
    assert schedule.execution_timezone == zone
    found = schedule(dg.build_schedule_context(scheduled_execution_time=when))
    return found.partition_key if isinstance(found, dg.RunRequest) else found.skip_message


@pytest.mark.parametrize(
    ("moment", "grid", "partition"),
    [
        ("2024-03-05T06:00", {}, "2024-03-04"),
        ("2024-03-05T00:00", {}, "2024-03-04"),
        ("2024-03-05T06:00", {"end_offset": 1}, "2024-03-05"),
        ("2024-03-05T06:00", {"end_offset": 2}, "2024-03-06"),
        ("2024-03-05T06:30", {"every": "hour"}, "2024-03-05-05:00"),
        ("2024-03-05T06:30", {"every": "hour", "end_offset": 1}, "2024-03-05-06:00"),
        ("2024-03-20T06:00", {"every": "week", "start": "2024-02-25"}, "2024-03-10"),
        ("2024-05-20T06:00", {"every": "month", "end": "2025-01-01"}, "2024-04-01"),
    ],
)
def test_a_tick_asks_for_the_newest_partition_that_can_be_made(tiny, moment, grid, partition):
    assert tick(tiny, moment, **grid) == partition


@pytest.mark.parametrize(
    ("moment", "grid", "partition"),
    [
        # The night of 10 March has no 02:00 in New York; that of 3 November has 01:00 twice.
        ("2024-03-11T04:00", {}, "2024-03-10"),
        ("2024-03-10T04:00", {"end_offset": 1}, "2024-03-10"),
        ("2024-03-10T03:30", {"every": "hour"}, "2024-03-10-01:00"),
        ("2024-11-03T02:30", {"every": "hour", "end": "2025-01-01"}, "2024-11-03-01:00-0500"),
        ("2024-11-03T04:00", {"end_offset": 1, "end": "2025-01-01"}, "2024-11-03"),
        ("2024-11-04T04:00", {"end": "2025-01-01"}, "2024-11-03"),
        # 23:30 in New York is the next day in UTC.
        ("2024-03-05T23:30", {}, "2024-03-04"),
    ],
)
def test_where_the_clocks_change(tiny, moment, grid, partition):
    assert tick(tiny, moment, zone=NEW_YORK, **grid) == partition


def test_each_partition_of_an_ended_grid_is_asked_for_and_then_none(tiny):
    assert tick(tiny, "2024-04-01T06:00") == "2024-03-31", "the last day has just passed"
    assert "end on 2024-04-01" in tick(tiny, "2024-04-02T06:00")
    assert tick(tiny, "2024-03-31T06:00", end_offset=1) == "2024-03-31"
    assert "end on 2024-04-01" in tick(tiny, "2024-04-01T06:00", end_offset=1)
    assert "is past them" in tick(tiny, "2030-01-01T06:00")


def test_a_monthly_grid_ends_after_its_last_month(tiny):
    grid = {"every": "month", "start": "2024-01-01", "end": "2024-03-01"}
    assert tick(tiny, "2024-03-01T06:00", **grid) == "2024-02-01"
    assert "end on" in tick(tiny, "2024-04-02T06:00", **grid)


def test_before_the_grid_starts_there_is_none(tiny):
    assert "no partition yet" in tick(tiny, "2024-03-01T06:00")
    assert "no partition yet" in tick(tiny, "2024-02-01T06:00", end_offset=1)
    assert tick(tiny, "2024-03-01T06:00", end_offset=1) == "2024-03-01"


def test_a_grid_without_an_end_goes_on(tiny):
    assert tick(tiny, "2031-07-08T06:00", end=None) == "2031-07-07"


def test_a_pipeline_without_a_schedule_has_none(tiny):
    tiny.declare(schedule=None)
    assert not list(build_definitions(tiny.pipeline()).schedules or [])
