"""The grid without Dagster is Dagster's in every time zone, or the zone is refused for the grid when it is declared."""

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import dagster as dg
import pytest
from pydantic import ValidationError

from pip_dagster.declaration.every import STEPS
from pip_dagster.declaration.grid import closed_partitions, partition_named
from pip_dagster.declaration.spec import Partitions
from pip_dagster.orchestration.partitions import partitions_definition, partitions_of

# How much of the grid around a change of the clocks is compared.
DAYS = {"20 minutes": 1.25, "30 minutes": 1.25, "hour": 1.25, "day": 4, "week": 16, "month": 70}
AROUND = {every: timedelta(days=days) for every, days in DAYS.items()}
# Clocks that change at midnight, by two hours, by half an hour; a day that was skipped; a zone that moved for good.
SOME = [
    *("Europe/Berlin", "America/Sao_Paulo", "Africa/Cairo", "Africa/Casablanca", "Antarctica/Troll", "Asia/Tehran"),
    *("Australia/Lord_Howe", "Pacific/Apia", "Pacific/Kwajalein", "Asia/Pyongyang", "America/Caracas", "Asia/Beirut"),
]


@cache
def changes(name, first, last):
    """The instants, to the hour, after which the zone's offset from UTC is another."""
    zone, found = ZoneInfo(name), []
    at = datetime(first, 1, 1, tzinfo=UTC)
    while at < datetime(last, 1, 1, tzinfo=UTC):
        before, at = at, at + timedelta(days=1)
        if at.astimezone(zone).utcoffset() != before.astimezone(zone).utcoffset():
            hours = (before + timedelta(hours=hour) for hour in range(1, 25))
            changed = next(h for h in hours if h.astimezone(zone).utcoffset() != before.astimezone(zone).utcoffset())
            found.append((changed, before.astimezone(zone).utcoffset(), at.astimezone(zone).utcoffset()))
    return tuple(found)


def compare(every, zone, at):
    """Whether the grid around an instant is declared at all; then it must be Dagster's, key by key."""
    local = at.astimezone(ZoneInfo(zone)).replace(minute=0, tzinfo=None)
    start, end = local - AROUND[every], local + AROUND[every]
    if every not in STEPS:
        start, end = (each.replace(hour=0) for each in (start, end))
    try:
        declared = Partitions(every=every, start=start, end=end, time_zone=zone)
    except ValidationError as error:
        assert f"{zone} cannot have a partition for every {every} of this grid" in str(error)
        return False
    now = at + 2 * AROUND[every] + timedelta(days=70)
    mine = [(p.key, p.start.astimezone(UTC), p.end.astimezone(UTC)) for p in closed_partitions(declared, now)]
    definition = partitions_definition(declared)
    theirs = []
    for key in definition.get_partition_keys(current_time=now):
        window = definition.time_window_for_partition_key(key)
        theirs.append((key, window.start.astimezone(UTC), window.end.astimezone(UTC)))
    assert mine == theirs, (every, zone, at)
    assert mine and all(a[2] == b[1] for a, b in zip(mine, mine[1:], strict=False)), "no instant is left out"
    named = [partition_named(declared, key) for key, _, _ in mine]
    assert [(p.key, p.start.astimezone(UTC), p.end.astimezone(UTC)) for p in named] == mine
    return True


@pytest.mark.parametrize("zone", SOME)
def test_around_the_newest_changes_of_the_clocks(zone):
    for at, _, _ in changes(zone, 1993, 2027)[-3:]:
        for every in AROUND:
            compare(every, zone, at)


@pytest.mark.soak
def test_around_every_change_of_every_zone():
    seen, compared, refused = set(), 0, set()
    for zone in sorted(available_timezones()):
        for at, before, after in changes(zone, 1970, 2038):
            if (at, before, after) not in seen:
                seen.add((at, before, after))
                for every in AROUND:
                    found = compare(every, zone, at)
                    compared += found
                    refused |= set() if found else {(every, after - before)}
    assert compared > 10_000
    assert all(moved % STEPS[every] for every, moved in refused if every in STEPS)
    assert all(abs(moved) > timedelta(hours=12) for every, moved in refused if every not in STEPS)


@pytest.mark.parametrize(
    ("every", "zone", "start", "says"),
    [
        ("hour", "Australia/Lord_Howe", "2024-01-01", "by 2024-04-0[67] its clocks move by 30 minutes"),
        (
            "20 minutes",
            "Australia/Lord_Howe",
            "2024-01-01",
            "by 2024-04-0[67] its clocks move by 30 minutes, which",
        ),
        ("hour", "America/Caracas", "2016-01-01", "by 2016-05-0[12] its clocks move by 30 minutes"),
        ("day", "Pacific/Apia", "2011-12-01", "its clocks skip 2011-12-30, which begins a partition"),
        ("day", "Pacific/Kwajalein", "1993-08-01", "its clocks skip 1993-08-21"),
    ],
)
def test_a_zone_is_refused_for_a_grid_that_its_clocks_break(every, zone, start, says):
    with pytest.raises(ValidationError, match=says):
        Partitions(every=every, start=start, time_zone=zone)


@pytest.mark.parametrize(
    ("every", "zone", "start"),
    [
        ("day", "Australia/Lord_Howe", "2024-01-01"),
        ("30 minutes", "Australia/Lord_Howe", "2024-01-01"),
        ("hour", "America/Caracas", "2016-05-02"),
        ("hour", "Pacific/Apia", "2012-01-01"),
        ("day", "Pacific/Apia", "2011-12-31"),
        ("week", "Pacific/Apia", "2011-12-01"),
        ("hour", "Asia/Kathmandu", "2000-01-01"),
    ],
)
def test_the_same_zone_is_taken_for_another_grid(every, zone, start):
    assert Partitions(every=every, start=start, time_zone=zone)


NO_KEYS = {
    "hour": ("2013-03-10-02:00", "2013-03-10-01:30", "2012-12-31-00:00", "2013-03-10", "2013-03-10-01:00-0500"),
    "15 minutes": ("2013-03-10-02:15", "2013-03-10-01:20", "2012-12-31-23:45", "2013-03-10-01:45-0500"),
    "day": ("2012-12-31", "2013-02-30", "2013-3-1", "2013-03-01-00:00"),
    "week": ("2013-03-11", "2012-12-30"),
    "month": ("2013-03-02", ""),
}


@pytest.mark.parametrize(("every", "key"), [(every, key) for every, keys in NO_KEYS.items() for key in keys])
def test_a_key_of_no_partition_is_refused(every, key):
    with pytest.raises(ValueError, match="is not the key|does not match|unconverted|out of range"):
        partition_named(Partitions(every=every, start="2013-01-01", time_zone="America/New_York"), key)


def test_both_hours_of_a_repeated_hour_have_a_key():
    declared = Partitions(every="hour", start="2013-11-03", time_zone="America/New_York")
    first, second = (partition_named(declared, f"2013-11-03-01:00{offset}") for offset in ("", "-0500"))
    assert first.end == second.start and second.key == "2013-11-03-01:00-0500"
    assert isinstance(partitions_definition(declared), dg.HourlyPartitionsDefinition)


def test_a_grid_that_ends_before_the_clocks_change_is_taken():
    declared = Partitions(every="hour", start="2024-05-01", end="2024-05-03", time_zone="Australia/Lord_Howe")
    [partition] = partitions_of(partitions_definition(declared), ["2024-05-01-05:00"])
    assert partition == closed_partitions(declared, datetime(2024, 6, 1, tzinfo=UTC))[5]
