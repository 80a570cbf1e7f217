"""Partitions of time in a time zone: every instant is in exactly one, on the days the clocks change too."""

import json
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from pip_dagster.declaration.grid import closed_partitions, partitions_of_range
from pip_dagster.declaration.spec import Partitions
from pip_dagster.errors import DeclarationError

NEW_YORK = ZoneInfo("America/New_York")
# Spring forward and fall back, 2013: 23 and 25 hours.
CLOCK_CHANGES = {"2013-03-10": 23, "2013-11-03": 25}
SQL = "SELECT order_id, moment, amount, quantity, gift, shop FROM raw.orders WHERE moment >= $start AND moment < $end"
SOURCES = {"orders": {"table": "raw.orders", "partition_column": "moment"}}


@pytest.fixture
def clock(tiny):
    """Orders every ten minutes of the two days on which New York's clocks change, and of a day around each."""
    tiny.source(
        """CREATE OR REPLACE TABLE raw.orders AS
        WITH moments AS (SELECT unnest(range(TIMESTAMPTZ '2013-03-09 00:00:00+00', TIMESTAMPTZ '2013-03-12 00:00:00+00',
                                             INTERVAL 10 MINUTE)) AS moment),
             both_changes AS (FROM moments UNION ALL SELECT moment + INTERVAL 238 DAY FROM moments),
             numbered AS (SELECT row_number() OVER (ORDER BY moment) - 1 AS i, moment FROM both_changes)
        SELECT i AS order_id, moment, amount, quantity, gift, shop
        FROM numbered n JOIN raw.orders o ON o.order_id = n.i % 200"""
    )
    return tiny


def declare(tiny, every, sql=SQL, **changes):
    grid = {"every": every, "start": "2013-01-01", "end": "2014-01-01", "time_zone": "America/New_York"}
    declaration = {"partitions": grid, "sources": SOURCES, "features": {"partition_column": "moment"}} | changes
    return tiny.declare(sql, **declaration)


@pytest.mark.slice
@pytest.mark.parametrize("offset", [0, 1, 2, 3])
@pytest.mark.parametrize("every", ["10 minutes", "hour", "day", "week", "month"])
@pytest.mark.parametrize("now", ["2013-11-03T01:30", "2013-03-01T00:00"])
def test_a_range_may_end_with_the_last_partition_that_can_be_built(every, offset, now):
    declared = Partitions(every=every, start="2013-01-01", time_zone="America/New_York", end_offset=offset)
    now = datetime.fromisoformat(now).replace(tzinfo=NEW_YORK).astimezone(UTC)
    closed = closed_partitions(declared, now)
    assert partitions_of_range(declared, closed[0].key, closed[-1].key, now) == closed
    later = closed_partitions(declared.model_copy(update={"end_offset": offset + 1}), now)[-1]
    with pytest.raises(ValueError, match=f"partition {re.escape(later.key)} is not over"):
        partitions_of_range(declared, closed[0].key, later.key, now)


def hours_of(tiny, day):
    """The keys of the hourly partitions that lie in a local day."""
    from pip_dagster.orchestration.partitions import partitions_definition

    start = datetime.fromisoformat(day).replace(tzinfo=NEW_YORK)
    definition = partitions_definition(tiny.pipeline().spec.partitions)
    return [
        key
        for key in definition.get_partition_keys(current_time=datetime(2014, 1, 2, tzinfo=UTC))
        if start <= definition.time_window_for_partition_key(key).start < start + timedelta(days=1)
    ]


def of_day(day):
    return f"timezone('America/New_York', moment)::DATE = '{day}'"


@pytest.mark.parametrize(("day", "hours"), CLOCK_CHANGES.items())
def test_hours_of_a_day_on_which_the_clocks_change(clock, day, hours):
    tiny = declare(clock, "hour")
    keys = hours_of(tiny, day)
    assert len(keys) == hours
    results = tiny.run(*keys)
    assert [results[key].features.rows_extracted for key in keys] == [6] * hours
    assert tiny.scores() == tiny.expected(of_day(day)) and len(tiny.scores()) == 6 * hours
    sources = [sources_of(results[key])["orders"]["rows"] for key in keys]
    assert sources == [6] * hours, "the lineage counts the rows that each hour read"


def sources_of(result):
    return json.loads(result.features.source_digests)


@pytest.mark.slice
@pytest.mark.parametrize("day", CLOCK_CHANGES)
def test_hours_together_alone_and_shuffled_give_the_same_scores(clock, day):
    tiny = declare(clock, "hour")
    keys = hours_of(tiny, day)[:5]
    together = {key: result.scoring.score_digest for key, result in tiny.run(*keys).items()}
    tiny.begin_again()
    shuffled = {key: result.scoring.score_digest for key, result in tiny.run(*keys[::-2], *keys[1::2]).items()}
    tiny.begin_again()
    alone = {key: tiny.run(key)[key].scoring.score_digest for key in reversed(keys)}
    assert together == alone == shuffled
    assert len(set(alone.values())) == 5


@pytest.mark.slice
def test_a_changed_row_changes_the_source_digest_of_its_own_hour_alone(clock):
    tiny = declare(clock, "hour")
    keys = hours_of(tiny, "2013-11-03")[:4]  # 00:00, 01:00 twice, 02:00
    before = {key: result.features.source_digests for key, result in tiny.run(*keys).items()}
    for instant, changed in (("05:30", keys[1]), ("06:30", keys[2])):
        tiny.source(f"UPDATE raw.orders SET quantity = quantity + 1 WHERE moment = '2013-11-03 {instant}:00+00'")
        after = {key: result.features.source_digests for key, result in tiny.run(*keys).items()}
        assert [key for key in keys if after[key] != before[key]] == [changed]
        before = after


@pytest.mark.parametrize("day", CLOCK_CHANGES)
def test_a_day_has_all_its_hours(clock, day):
    tiny = declare(clock, "day")
    assert tiny.run(day)[day].features.rows_extracted == 6 * CLOCK_CHANGES[day]
    assert tiny.scores() == tiny.expected(of_day(day))


@pytest.mark.parametrize(
    ("every", "key", "rows"),
    [
        ("week", "2013-03-10", 6 * 23 + 6 * 20),  # a Sunday of 23 hours; the source ends on Monday at 20:00
        ("month", "2013-11-01", 6 * 24 * 3),
        ("month", "2013-12-01", 0),
    ],
)
def test_weeks_and_months(clock, every, key, rows):
    tiny = declare(clock, every)
    assert tiny.run(key)[key].features.rows_extracted == rows
    start = datetime.fromisoformat(key).replace(tzinfo=NEW_YORK)
    [partition] = tiny.partitions(key)
    assert partition.start == start
    expected = tiny.expected(f"moment >= '{partition.start.isoformat()}' AND moment < '{partition.end.isoformat()}'")
    assert tiny.scores() == expected and bool(expected) == bool(rows)


def test_a_half_hour_zone(clock):
    tiny = declare(clock, "hour", partitions={"every": "hour", "start": "2013-03-01", "time_zone": "Asia/Kolkata"})
    [first, second] = ["2013-03-10-05:00", "2013-03-10-06:00"]
    results = tiny.run(first, second)
    assert [result.features.rows_extracted for result in results.values()] == [6, 6]
    assert [sources_of(result)["orders"]["rows"] for result in results.values()] == [6, 6]


@pytest.mark.slice
@pytest.mark.parametrize(("every", "rows"), [("10 minutes", 1), ("30 minutes", 3)])
@pytest.mark.parametrize(("day", "hours"), CLOCK_CHANGES.items())
def test_minutes_of_a_day_on_which_the_clocks_change(clock, every, rows, day, hours):
    tiny = declare(clock, every)
    midnight = datetime.fromisoformat(day).replace(tzinfo=NEW_YORK)
    now = midnight.astimezone(UTC) + timedelta(hours=hours)
    keys = [p.key for p in closed_partitions(tiny.pipeline().spec.partitions, now) if p.start >= midnight]
    assert len(keys) == 6 * hours // rows == len(set(keys))
    around = [key for key in keys if key[11:13] in ("01", "02")]
    results = tiny.run(*around)
    assert [result.features.rows_extracted for result in results.values()] == [rows] * len(around)
    assert [sources_of(result)["orders"]["rows"] for result in results.values()] == [rows] * len(around)
    assert len(tiny.scores()) == rows * len(around) == 6 * (3 if hours == 25 else 1)
    assert "0 stale" in tiny.shell("plan", "orders", "--from", around[0], "--to", around[-1])
    tiny.source(f"UPDATE raw.orders SET amount = amount + 1 WHERE moment = '{results[around[1]].partition.start}'")
    plan = tiny.shell("plan", "orders", "--from", around[0], "--to", around[-1])
    assert "1 stale" in plan and around[1] in plan


@pytest.mark.parametrize("column", ["moment::TIMESTAMP", "moment::DATE"])
def test_wall_clock_time_cannot_tell_the_hours_of_a_zone_whose_clocks_change(clock, column):
    tiny = declare(clock, "hour", SQL.replace("order_id, moment", f"order_id, {column} AS moment"))
    with pytest.raises(
        DeclarationError, match=r"'moment' is (TIMESTAMP|DATE); expected TIMESTAMP WITH TIME ZONE to tell the hour"
    ):
        tiny.run("2013-03-10-05:00")


def test_wall_clock_time_is_clear_enough_for_hours_in_utc_and_for_days_anywhere(clock):
    naive = SQL.replace("order_id, moment", "order_id, timezone('UTC', moment) AS moment")
    tiny = declare(clock, "hour", naive, partitions={"every": "hour", "start": "2013-01-01"})
    assert tiny.run("2013-03-10-07:00")["2013-03-10-07:00"].features.rows_extracted == 6
    local = SQL.replace("order_id, moment", "order_id, timezone('America/New_York', moment)::DATE AS moment")
    tiny = declare(clock, "day", local)
    assert tiny.run("2013-03-10")["2013-03-10"].features.rows_extracted == 6 * 23


def test_dates_alone_cannot_bound_an_hour(clock):
    """`>= $start_date AND < $end_date` is empty for every hour but the last of a day: silently no rows."""
    dated = SQL.replace("$start ", "$start_date ").replace("$end", "$end_date")
    tiny = declare(clock, "hour", dated)
    with pytest.raises(DeclarationError, match=r"features\.sql.*\$start and \$end"):
        tiny.run("2013-03-10-05:00")
