"""When a cron expression ticks: as Dagster says, which runs it, except that repeated and skipped hours may differ."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from dagster._utils.schedules import cron_string_iterator
from hypothesis import given, settings
from hypothesis import strategies as st

from pip_dagster.declaration.cron import Cron


def ticks(text, zone, at, count):
    cron, found = Cron.parse(text), []
    for _ in range(count):
        at = cron.next_after(at, ZoneInfo(zone))
        found.append(at)
    return found


def dagsters(text, zone, at, count):
    iterator = cron_string_iterator((at + timedelta(seconds=1)).timestamp(), text, zone)
    return [next(iterator).astimezone(UTC) for _ in range(count)]


def field(low, high):
    number = st.integers(low, high)
    # Dagster's parser takes 0-0 of the weekdays for all seven.
    pairs = st.tuples(number, number).filter(lambda pair: pair[0] < pair[1])
    ranges = pairs.map(lambda pair: f"{pair[0]}-{pair[1]}")
    steps = st.tuples(st.one_of(st.just("*"), ranges), st.integers(1, 9)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    one = st.one_of(number.map(str), ranges, steps)
    return st.one_of(st.just("*"), one, st.lists(one, min_size=2, max_size=3).map(",".join))


# Steps in both fields of days are read in several ways, by Dagster too.
CRONS = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)).filter(
    lambda fields: "*" in (fields[2], fields[4]) or "*/" not in fields[2] + fields[4]
)


@given(CRONS.map(" ".join), st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1)))
@settings(max_examples=60, deadline=None)
def test_ticks_are_dagsters(text, at):
    at = at.replace(tzinfo=UTC, microsecond=0)
    assert ticks(text, "UTC", at, 3) == dagsters(text, "UTC", at, 3)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
@pytest.mark.parametrize(
    "text",
    [
        "0 6 * * *",
        "@daily",
        "30 2 * * *",
        "15 */6 * * *",
        "5 * * * *",
        "0 7 * * MON-fri",
        "0 0 1 jan,jul *",
        "@monthly",
    ],
)
def test_ticks_are_dagsters_in_a_zone_up_to_an_hour_of_a_change_of_clocks(text, zone):
    for begin in (datetime(2024, 3, 8, 12, tzinfo=UTC), datetime(2024, 10, 25, 12, tzinfo=UTC)):
        ours, theirs = ticks(text, zone, begin, 12), dagsters(text, zone, begin, 10)
        assert all(min(abs(a - b) for a in ours) <= timedelta(hours=1) for b in theirs)
        assert ours[0] == theirs[0]


def test_an_hourly_tick_comes_in_both_hours_that_the_clocks_repeat():
    before = datetime(2024, 10, 26, 23, 30, tzinfo=UTC)  # 01:30 in Berlin
    found = ticks("0 * * * *", "Europe/Berlin", before, 3)
    assert found == [datetime(2024, 10, 27, hour, tzinfo=UTC) for hour in (0, 1, 2)]


@pytest.mark.parametrize(
    ("text", "hours"),
    [("0 6 * * *", 24), ("0 6 * * 1-5", 72), ("0 */6 * * *", 6), ("0 6,8 * * *", 22), ("0 6 1 * *", 31 * 24)],
)
def test_the_longest_gap(text, hours):
    assert Cron.parse(text).longest_gap() == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["0 6 L * *", "0 6 * * 5#2", "61 * * * *", "0 6 * *", "@never", "", "5-1 * * * *"])
def test_what_it_does_not_understand_is_none(text):
    assert Cron.parse(text) is None


def test_a_day_that_never_comes_has_no_tick():
    cron = Cron.parse("0 0 30 2 *")
    assert cron.next_after(datetime(2024, 1, 1, tzinfo=UTC), ZoneInfo("UTC")) is None and cron.longest_gap() is None
    leap = Cron.parse("0 0 29 2 *").next_after(datetime(2024, 3, 1, tzinfo=UTC), ZoneInfo("UTC"))
    assert leap == datetime(2028, 2, 29, tzinfo=UTC)
