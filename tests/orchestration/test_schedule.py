"""Which partitions a tick asks for, and when it asks for none."""

from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.spec import Partitions
from pip_dagster.flow.closed import Closed, requested_at
from pip_dagster.orchestration.definitions import build_definitions
from pip_dagster.orchestration.partitions import partitions_definition
from pip_dagster.orchestration.schedule import closed_at, previous_tick

NEW_YORK = "America/New_York"


@pytest.fixture(scope="module")
def nothing_ran():
    """An instance that knows no run."""
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def tick(tiny, nothing_ran):
    return lambda *arguments, **options: evaluate(tiny, *arguments, **({"instance": nothing_ran} | options))


def keys_of(request):
    """What a request is for: a key, or first and last of a range."""
    if request.partition_key:
        return request.partition_key
    return request.tags["dagster/asset_partition_range_start"], request.tags["dagster/asset_partition_range_end"]


def evaluate(tiny, moment, *, instance, zone="UTC", schedule="0 6 * * *", **grid):
    """What the schedule answers at `moment`, local time: what it asks for, or the reason for nothing."""
    when = datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(zone))
    tiny.declare(partitions={"time_zone": zone} | grid, schedule=schedule)
    definition = build_definitions(tiny.pipeline()).resolve_schedule_def("orders_schedule")
    assert definition.execution_timezone == zone
    found = definition(dg.build_schedule_context(instance=instance, scheduled_execution_time=when))
    if isinstance(found, dg.SkipReason):
        return found.skip_message
    asked = [keys_of(request) for request in found]
    return asked[0] if len(asked) == 1 else asked


@pytest.mark.parametrize(
    ("moment", "grid", "partition"),
    [
        ("2024-03-05T06:00", {}, "2024-03-04"),
        ("2024-03-05T06:00", {"end_offset": 1}, "2024-03-05"),
        ("2024-03-05T06:00", {"end_offset": 2}, "2024-03-06"),
        ("2024-03-05T06:30", {"every": "hour", "schedule": "30 * * * *"}, "2024-03-05-05:00"),
        ("2024-03-05T06:30", {"every": "hour", "schedule": "30 * * * *", "end_offset": 1}, "2024-03-05-06:00"),
        ("2024-03-20T06:00", {"every": "week", "start": "2024-02-25"}, "2024-03-10"),
        ("2024-05-20T06:00", {"every": "month", "end": "2025-01-01"}, "2024-04-01"),
    ],
)
def test_a_tick_asks_for_the_newest_partition_that_can_be_made(tick, moment, grid, partition):
    assert tick(moment, **grid) == partition


@pytest.mark.parametrize(
    ("moment", "grid", "partition"),
    [
        # The night of 10 March has no 02:00 in New York; that of 3 November has 01:00 twice.
        ("2024-03-11T04:00", {}, "2024-03-10"),
        ("2024-03-10T04:00", {"end_offset": 1}, "2024-03-10"),
        ("2024-03-10T03:30", {"every": "hour", "schedule": "30 * * * *"}, "2024-03-10-01:00"),
        (
            "2024-11-03T02:30",
            {"every": "hour", "end": "2025-01-01", "schedule": "30 * * * *"},
            "2024-11-03-01:00-0500",
        ),
        ("2024-11-03T04:00", {"end_offset": 1, "end": "2025-01-01"}, "2024-11-03"),
        ("2024-11-04T04:00", {"end": "2025-01-01"}, "2024-11-03"),
        # 23:30 in New York is the next day in UTC.
        ("2024-03-05T23:30", {}, "2024-03-04"),
    ],
)
def test_where_the_clocks_change(tick, moment, grid, partition):
    assert tick(moment, zone=NEW_YORK, **({"schedule": "0 4 * * *"} | grid)) == partition


@pytest.mark.parametrize(
    ("moment", "first", "last", "hours"),
    [
        ("2024-03-05T06:00", "2024-03-04-06:00", "2024-03-05-05:00", 24),
        ("2024-03-10T06:00", "2024-03-09-06:00", "2024-03-10-05:00", 23),
        ("2024-11-03T06:00", "2024-11-02-06:00", "2024-11-03-05:00", 25),
    ],
)
def test_a_daily_tick_takes_all_the_hours_that_closed_since_the_day_before(tiny, tick, moment, first, last, hours):
    grid = {"every": "hour", "end": "2025-01-01"}
    assert tick(moment, zone=NEW_YORK, **grid) == (first, last)
    when = datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(NEW_YORK)).astimezone(UTC)
    definition = partitions_definition(tiny.pipeline().spec.partitions)
    since = previous_tick("0 6 * * *", NEW_YORK, when)
    found = [each.partition for each in closed_at(definition, when, since, 0) if each.at > since]
    assert len(found) == hours and len({each.key for each in found}) == hours
    assert all(a.end == b.start for a, b in zip(found, found[1:], strict=False))


def test_a_weekly_tick_takes_the_days_of_the_week_in_runs_of_the_declared_size(tick):
    assert tick("2024-03-18T06:00", schedule="0 6 * * 1") == ("2024-03-11", "2024-03-17")
    assert tick("2024-03-18T06:00", schedule="0 6 * * 1", max_per_run=3) == [
        ("2024-03-11", "2024-03-13"),
        ("2024-03-14", "2024-03-16"),
        "2024-03-17",
    ]


def test_each_partition_of_an_ended_grid_is_asked_for_and_then_none(tick):
    assert tick("2024-04-01T06:00") == "2024-03-31", "the last day has just passed"
    assert "end on 2024-04-01" in tick("2024-04-02T06:00")
    assert tick("2024-03-31T06:00", end_offset=1) == "2024-03-31"
    assert "end on 2024-04-01" in tick("2024-04-01T06:00", end_offset=1)
    assert "Build past partitions with a backfill" in tick("2030-01-01T06:00")


def test_a_monthly_grid_ends_after_its_last_month(tick):
    grid = {"every": "month", "start": "2024-01-01", "end": "2024-03-01"}
    assert tick("2024-03-01T06:00", **grid) == "2024-02-01"
    assert "end on" in tick("2024-04-02T06:00", **grid)


def test_before_the_grid_starts_there_is_none(tick):
    assert "no partition yet" in tick("2024-03-01T06:00")
    assert "no partition yet" in tick("2024-02-01T06:00", end_offset=1)
    assert tick("2024-03-01T06:00", end_offset=1) == "2024-03-01"


def test_a_grid_without_an_end_goes_on(tick):
    assert tick("2031-07-08T06:00", end=None) == "2031-07-07"


def test_a_pipeline_without_a_schedule_has_none(tiny):
    tiny.declare(schedule=None)
    assert not list(build_definitions(tiny.pipeline()).schedules or [])


def test_a_schedule_in_a_time_zone_of_its_own_that_is_declared_running(tiny):
    tiny.declare(schedule={"cron": "0 6 * * *", "time_zone": "Asia/Tokyo", "catch_up": 2, "status": "running"})
    definition = build_definitions(tiny.pipeline()).resolve_schedule_def("orders_schedule")
    assert definition.execution_timezone == "Asia/Tokyo"
    assert definition.default_status == dg.DefaultScheduleStatus.RUNNING


def test_the_missed_ones_are_made_up_once(tick):
    """Days asked for by an earlier tick, or made by anybody, are not asked for again."""
    caught = {"cron": "0 6 * * *", "catch_up": 5}
    with dg.instance_for_test() as instance:

        def asked_for(at, **tags):
            tags = {f"dagster/{name}": value for name, value in tags.items()}
            tags |= {"dagster/schedule_name": "orders_schedule", "dagster/scheduled_execution_time": at}
            instance.create_run_for_job(orders_job, tags=tags)

        asked_for("2024-03-07T06:00:00+00:00", partition="2024-03-06")
        instance.report_runless_asset_event(
            dg.AssetMaterialization(dg.AssetKey(["orders", "predictions"]), partition="2024-03-08")
        )
        expected = ["2024-03-05", "2024-03-07", ("2024-03-09", "2024-03-10")]
        assert tick("2024-03-11T06:00", schedule=caught, instance=instance) == expected
        # A tick that was cut short answers the same again, for Dagster to find what it has launched already.
        asked_for("2024-03-11T06:00:00+00:00", partition="2024-03-07")
        bounds = {"asset_partition_range_start": "2024-03-09", "asset_partition_range_end": "2024-03-10"}
        asked_for("2024-03-11T06:00:00+00:00", **bounds)
        assert tick("2024-03-11T06:00", schedule=caught, instance=instance) == expected
        assert tick("2024-03-12T06:00", schedule=caught, instance=instance) == "2024-03-11"


@dg.op
def nothing():
    pass


@dg.job
def orders_job():
    nothing()


CALENDAR = st.sampled_from(
    [
        ("day", "0 6 * * *", "UTC"),
        ("day", "0 4 * * *", NEW_YORK),
        ("day", "30 2 * * *", NEW_YORK),  # a time that one night has not, and another twice
        ("day", "0 6 * * 1", "Europe/Berlin"),
    ]
)


@pytest.mark.slice
@settings(max_examples=6, deadline=None)
@given(
    calendar=CALENDAR,
    catch_up=st.integers(0, 10),
    downtimes=st.lists(st.tuples(st.integers(0, 360), st.integers(1, 25)), max_size=8),
)
def test_over_a_year_with_downtime_every_partition_is_asked_for_once(calendar, catch_up, downtimes):
    """None twice; none is left out that a tick's catch-up reaches, and no tick asks for others."""
    every, cron, zone = calendar
    definition = partitions_definition(Partitions(every=every, start=date(2024, 1, 1), time_zone=zone))
    begin = datetime(2024, 1, 2, tzinfo=UTC)
    down = [(begin + timedelta(days=at), begin + timedelta(days=at + length)) for at, length in downtimes]
    asked: list[str] = []
    reachable: set[str] = set()
    for when in ticks(cron, zone, begin, begin + timedelta(days=366)):
        if any(start <= when < end for start, end in down):
            continue
        previous = previous_tick(cron, zone, when)
        closed = closed_at(definition, when, previous, catch_up)
        due = requested_at(closed, previous, catch_up=catch_up, requested=asked, built=())
        new = [each.partition.key for each in closed if each.at > previous]
        older = [each.partition.key for each in closed if each.at <= previous]
        reachable |= {*new, *older[len(older) - catch_up :]}
        asked += [partition.key for partition in due if partition.key not in asked or new]
    assert len(asked) == len(set(asked))
    assert set(asked) == reachable


@cache  # Dagster takes a second for the year
def ticks(cron, zone, begin, end):
    grid = dg.TimeWindowPartitionsDefinition(
        start=datetime(2023, 12, 1), fmt="%Y-%m-%d", cron_schedule=cron, timezone=zone
    )
    with dg.partition_loading_context(effective_dt=end):
        window = grid.get_last_partition_window()
    found = []
    while window and window.end.astimezone(UTC) > begin:
        found.append(window.end.astimezone(UTC))
        window = grid.get_prev_partition_window(window.start)
    return found[::-1]


HOUR = timedelta(hours=1)
START = datetime(2024, 1, 1, tzinfo=UTC)


@settings(deadline=None)
@given(up=st.lists(st.booleans(), min_size=50, max_size=400), catch_up=st.integers(0, 40))
def test_the_core_alone_hour_by_hour(up, catch_up):
    """Against the plainest model there is: a hole of up to `catch_up` hours is filled, of a longer one its end."""
    asked: list[str] = []
    expected: list[str] = []
    hours = [
        Closed(Partition(str(i), START + i * HOUR, START + (i + 1) * HOUR), START + (i + 1) * HOUR)
        for i in range(len(up))
    ]
    for i, is_up in enumerate(up):
        if is_up:
            expected += [str(j) for j in range(max(0, i - catch_up), i + 1) if str(j) not in expected]
            due = requested_at(hours[: i + 1], START + i * HOUR, catch_up=catch_up, requested=set(asked), built=())
            asked += [each.key for each in due]
    assert asked == expected
