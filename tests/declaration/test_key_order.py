"""Partition keys in the order of time, on the day on which the clocks repeat an hour."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.declaration.key_order import Between, between, in_order, start_of
from pip_dagster.declaration.spec import Partitions

NOW = datetime(2025, 1, 1, tzinfo=UTC)
ZONES = {
    "Europe/Berlin": "2024-10-26T22:00",
    "America/New_York": "2024-11-02T22:00",
    "Antarctica/Troll": "2024-10-26T22:00",  # by two hours
    "America/Havana": "2024-11-02T22:00",  # at midnight, so that the hour before it is of another date
    "UTC": "2024-10-26T22:00",
}


def grid(zone, every):
    start = datetime.fromisoformat(ZONES[zone])
    return Partitions(every=every, start=start, end=start.replace(day=start.day + 2), time_zone=zone)


@pytest.mark.parametrize("every", ["5 minutes", "30 minutes", "hour", "day"])
@pytest.mark.parametrize("zone", ZONES)
def test_keys_of_a_grid_are_in_its_order(zone, every):
    declared = grid(zone, every)
    partitions = closed_partitions(declared, NOW)
    keys = [each.key for each in partitions]
    assert [start_of(declared, key) for key in keys] == [each.start for each in partitions]
    assert in_order(declared, sorted(keys)) == keys
    if every == "30 minutes" and zone != "UTC":
        assert sorted(keys) != keys, "else this test shows nothing"


@given(st.sampled_from(list(ZONES)), st.integers(0, 50), st.integers(0, 50), st.booleans(), st.booleans())
def test_a_range_has_what_lies_between_its_ends_in_time(zone, first, last, from_first, to_last):
    declared = grid(zone, "30 minutes")
    partitions = closed_partitions(declared, NOW)
    first, last = (each % len(partitions) for each in sorted((first % len(partitions), last % len(partitions))))
    named = between(declared, partitions[first].key if from_first else None, partitions[last].key if to_last else None)
    found = [each for each in partitions if named.has(each.start)]
    assert found == partitions[first if from_first else 0 : last + 1 if to_last else None]


def test_a_date_is_the_whole_of_it():
    declared = grid("Europe/Berlin", "hour")
    named = between(declared, "2024-10-27", "2024-10-27")
    keys = [each.key for each in closed_partitions(declared, NOW) if named.has(each.start)]
    assert keys[0] == "2024-10-27-00:00" and keys[-1] == "2024-10-27-23:00" and len(keys) == 25


@pytest.mark.parametrize(
    ("first", "last", "text"),
    [
        ("yesterday", None, "'yesterday' is no date, time or partition key; expected for example '2024-10-26-22:00'"),
        (None, "2024-13-01", "'2024-13-01' is no date, time or partition key"),
        ("2024-10-27-02:00+0100", "2024-10-27-02:00", "which is earlier"),
        (None, "9999-12-31", "beyond the calendar"),
    ],
)
def test_a_bound_that_is_none_is_refused_with_an_example(first, last, text):
    with pytest.raises(ValueError, match=text.replace("+", r"\+")):
        between(grid("Europe/Berlin", "30 minutes"), first, last)


def test_former_keys_come_first_and_an_open_range_is_all():
    declared = grid("Europe/Berlin", "30 minutes")
    assert in_order(declared, ["2024-10-27-02:30", "former", "2024-10-26"]) == [
        "former",
        "2024-10-26",
        "2024-10-27-02:30",
    ]
    assert Between().sql() == "TRUE" and Between().has(NOW)
