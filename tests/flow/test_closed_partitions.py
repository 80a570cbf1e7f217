"""The grid made without Dagster is Dagster's: the same keys, the same instants, in every cadence and time zone."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pip_dagster.declaration.every import STEPS
from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.declaration.spec import Partitions
from pip_dagster.orchestration.partitions import partitions_definition, partitions_of

# Not Apia, which skipped a day: there Dagster has two partitions of one window.
# Clocks that change at midnight, by half an hour, at quarter hours off UTC.
ZONES = ["UTC", "America/New_York", "America/Sao_Paulo", "America/Havana", "Asia/Beirut", "Africa/Cairo"] + [
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
]


@st.composite
def grids(draw):
    every = draw(st.sampled_from(["5 minutes", "20 minutes", "hour", "day", "week", "month"]))
    # Dagster's own keys of Lord Howe's half hours do not name their windows.
    zone = draw(st.sampled_from([zone for zone in ZONES if every not in STEPS or zone != "Australia/Lord_Howe"]))
    first = draw(st.datetimes(datetime(2009, 1, 1), datetime(2017, 12, 31)))
    start = first.replace(minute=0, second=0, microsecond=0, hour=first.hour if every in STEPS else 0)
    end = draw(st.none() | st.integers(40, 500).map(lambda days: start + timedelta(days=days)))
    offset = draw(st.sampled_from([0, 0, 1, 2, -1]))
    declared = Partitions(every=every, start=start, end=end, time_zone=zone, end_offset=offset)
    # Before the first partition begins, Dagster's keys and its last window disagree about an offset.
    begun = {"week": 7, "month": 31}.get(every, 0)
    hours = draw(st.integers(24 * begun, 24 * ({"hour": 60}.get(every, 2) if every in STEPS else 900)))
    return declared, start.replace(tzinfo=declared.zone).astimezone(UTC) + timedelta(hours=hours)


@settings(max_examples=60, deadline=None)
@given(grids())
def test_it_is_dagsters(grid):
    declared, now = grid
    definition = partitions_definition(declared)
    theirs = partitions_of(definition, definition.get_partition_keys(current_time=now))
    # A grid that ends before its first whole month has one partition to Dagster, which lies after its end.
    assume(declared.end is None or all(p.end_local <= declared.end for p in theirs))
    mine = closed_partitions(declared, now)
    assert mine == theirs
    assert [(p.start_local, p.end_local) for p in mine] == [(p.start_local, p.end_local) for p in theirs]


@pytest.mark.parametrize(("offset", "expected"), [(0, ["2024-03-01"]), (1, ["2024-03-01", "2024-03-02"]), (-1, [])])
def test_a_partition_is_closed_from_the_instant_it_ends(offset, expected):
    declared = Partitions(start=datetime(2024, 3, 1), time_zone="America/New_York", end_offset=offset)
    midnight = datetime(2024, 3, 2, 5, tzinfo=UTC)
    assert [p.key for p in closed_partitions(declared, midnight)] == expected
    before = closed_partitions(declared, midnight - timedelta(microseconds=1))
    assert [p.key for p in before] == expected[:-1]


def test_nothing_is_open_before_the_first_partition_begins():
    declared = Partitions(start=datetime(2024, 3, 1), end_offset=2)
    assert closed_partitions(declared, datetime(2024, 2, 29, 23, 59, tzinfo=UTC)) == []
    assert [p.key for p in closed_partitions(declared, datetime(2024, 3, 1, tzinfo=UTC))] == [
        "2024-03-01",
        "2024-03-02",
    ]
