"""Ranges of partitions where the clocks repeat an hour: each command has those that lie between the ends in time."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

KEYS = [
    *("2024-10-27-01:00", "2024-10-27-01:30", "2024-10-27-02:00", "2024-10-27-02:30"),
    *("2024-10-27-02:00+0100", "2024-10-27-02:30+0100", "2024-10-27-03:00", "2024-10-27-03:30"),
]
# By their texts, the first has three partitions and the second none.
RANGES = [(2, 3), (3, 4), (0, 5), (4, 7)]


@pytest.fixture(scope="module")
def hours(template, helpers, tmp_path_factory):
    """Half hours of the night in which Berlin's clocks repeat an hour."""
    tiny = helpers.Tiny(shutil.copytree(template, tmp_path_factory.mktemp("hours") / "shop"))
    tiny.source(
        "CREATE OR REPLACE TABLE raw.orders AS SELECT * EXCLUDE (day), TIMESTAMPTZ '2024-10-26 23:00:00+00' "
        "+ to_minutes(((row_number() OVER (ORDER BY order_id) - 1) * 3)::INT) AS moment FROM raw.orders"
    )
    grid = {"every": "30 minutes", "start": "2024-10-27T01:00", "end": "2024-10-27T04:00", "time_zone": "Europe/Berlin"}
    tiny.declare(
        "SELECT order_id, moment, amount, quantity, gift, shop FROM raw.orders "
        "WHERE moment >= $start AND moment < $end",
        partitions=grid,
        sources={"orders": {"table": "raw.orders", "partition_column": "moment"}},
        features={"partition_column": "moment"},
        schedule=None,
    )
    assert [*tiny.run(*KEYS)] == KEYS
    return tiny


def words(first, last):
    return f"{KEYS[first]}..{KEYS[last]}"


@pytest.mark.parametrize(("first", "last"), RANGES)
def test_status_shows_the_range_in_the_order_of_time(hours, first, last):
    found = json.loads(hours.shell("status", "orders", words(first, last), "--json"))
    assert [each["partition_key"] for each in found] == KEYS[first : last + 1]


@pytest.mark.parametrize(("first", "last"), RANGES[:2])
def test_export_writes_the_range(hours, tmp_path, first, last):
    hours.shell("export", "orders", words(first, last), "-o", str(tmp_path / "out"))
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet")
    assert {*rows["partition_key"].to_pylist()} == {*KEYS[first : last + 1]} and rows.num_rows == 20


@pytest.mark.parametrize(("first", "last"), RANGES[:2])
def test_rollback_and_replay_take_the_range(hours, first, last):
    dry = json.loads(
        hours.shell("models", "rollback", "orders", words(first, last), "--version", "1", "--dry-run", "--json")
    )
    assert dry["kept"] == last - first + 1
    replayed = json.loads(hours.shell("replay", "orders", words(first, last), "--json"))
    assert [each["partition"] for each in replayed["partitions"]] == KEYS[first : last + 1]


def test_the_ends_of_what_is_there_are_named_in_the_order_of_time(hours):
    summary = json.loads(hours.shell("status", "--json"))[0]
    assert (summary["first"], summary["last"]) == (KEYS[0], KEYS[-1])
    assert f"{KEYS[0]} to {KEYS[-1]}" in hours.shell("lineage", "orders", "2024-10-27-09:00", code=1)


def test_an_undeclared_pipeline_is_shown_by_keys_that_it_has(hours):
    file = hours.folder / "defs.yaml"
    declared = file.read_text()
    file.unlink()
    try:
        found = json.loads(hours.shell("status", "orders", words(3, 4), "--json"))
        assert [each["partition_key"] for each in found] == KEYS[3:5]
        assert "its grid is not declared" in hours.shell("status", "orders", "2024-10-27-09:00", code=1)
    finally:
        file.write_text(declared)
