"""Fingerprints: of rows whatever their order, adding up over days; of what a partition's sources held."""

import json

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pip_dagster.warehouse.digest import RowSet, row_set_sql

COLUMNS = {"a": "BIGINT", "b": "VARCHAR", "c": "DOUBLE"}
FIRST, SECOND, THIRD = "2024-03-01", "2024-03-02", "2024-03-03"
ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-3, 3)),
        st.one_of(st.none(), st.sampled_from(["", "x", "東"])),
        st.one_of(st.none(), st.sampled_from([0.0, 1.5, float("nan"), float("inf")])),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def con():
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (a BIGINT, b VARCHAR, c DOUBLE)")
        yield connection


def row_set(con, rows):
    con.execute("DELETE FROM t")
    if rows:
        con.executemany("INSERT INTO t VALUES ($1, $2, $3)", rows)
    return RowSet(*con.execute(f"SELECT {row_set_sql(COLUMNS)} FROM t").fetchone())


@settings(max_examples=80, deadline=None)
@given(first=ROWS, second=ROWS, data=st.data())
def test_fingerprints_add_up_and_do_not_know_order(con, first, second, data):
    both = row_set(con, first + second)
    assert row_set(con, first) + row_set(con, second) == both
    assert row_set(con, data.draw(st.permutations(first + second))) == both
    assert RowSet() + both == both


@settings(max_examples=80, deadline=None)
@given(rows=ROWS, more=ROWS.filter(bool))
def test_a_row_more_is_another_fingerprint_even_one_that_is_there_twice(con, rows, more):
    digest = row_set(con, rows).digest(COLUMNS)
    assert row_set(con, rows + more).digest(COLUMNS) != digest
    assert row_set(con, rows + more + more).digest(COLUMNS) != digest


def test_a_pair_of_equal_rows_is_not_another_pair(con):
    pairs = [row_set(con, [(number, "x", 1.5)] * 2) for number in (1, 2)]
    assert pairs[0].xor == pairs[1].xor == 0, "to the xor alone they are equal"
    assert pairs[0].digest(COLUMNS) != pairs[1].digest(COLUMNS)


def test_a_digest_knows_names_and_types_of_columns(con):
    rows = row_set(con, [(1, "x", 1.5)])
    other = [
        {"a": "BIGINT", "b": "VARCHAR"},
        COLUMNS | {"a": "INTEGER"},
        {"b": "VARCHAR", "a": "BIGINT", "c": "DOUBLE"},
    ]
    digests = [rows.digest(columns) for columns in [COLUMNS, *other]]
    assert len(set(digests)) == 4
    assert digests[0].startswith("dh1:"), "a digest says how it was made"


def digests(results):
    found = {key: json.loads(result.features.source_digests) for key, result in results.items()}
    return {key: {name: source["digest"] for name, source in sources.items()} for key, sources in found.items()}


def changed(tiny, before, *statements):
    """Which partitions' source digests differ once these statements ran."""
    tiny.source(*statements)
    after = digests(tiny.run())
    return [key for key in after if after[key] != before[key]]


def watch(tiny, **source):
    return tiny.declare(sources={"orders": {"table": "raw.orders"} | source})


@pytest.mark.parametrize(
    ("lookback", "stale"),
    [
        ("0 days", [FIRST]),
        ("1 day", [FIRST, SECOND]),
        ("2 days", [FIRST, SECOND, THIRD]),
        ("47 hours", [FIRST, SECOND]),  # a DATE counts from its midnight
        ("48 hours", [FIRST, SECOND, THIRD]),
        ("1 week", [FIRST, SECOND, THIRD, "2024-03-04"]),
    ],
)
def test_a_changed_row_changes_the_digest_of_the_partitions_that_look_back_to_it(tiny, lookback, stale):
    watch(tiny, partition_column="day", lookback=lookback)
    before = digests(tiny.run())
    change = "UPDATE raw.orders SET quantity = quantity + 1 WHERE order_id = 7"
    assert changed(tiny, before, change) == stale


def test_a_source_without_a_partition_column_counts_whole(tiny):
    watch(tiny)
    before = digests(tiny.run())
    assert changed(tiny, before, "DELETE FROM raw.orders WHERE order_id = 199") == list(before)


@pytest.mark.parametrize(
    ("lookback", "minutes", "stale"),
    [("20 minutes", 15, True), ("20 minutes", 25, False), ("90 minutes", 80, True), ("90 minutes", 100, False)],
)
def test_a_lookback_in_minutes_is_honoured(tiny, lookback, minutes, stale):
    tiny.source(
        "CREATE TABLE raw.events AS SELECT TIMESTAMPTZ '2024-03-02 00:00:00+00' - INTERVAL (i) MINUTE AS seen, i "
        "FROM range(1, 120) r(i)"
    )
    events = {"table": "raw.events", "partition_column": "seen", "lookback": lookback}
    sql = (
        "SELECT order_id, day, gift, shop, quantity, amount FROM raw.orders "
        "WHERE day >= $start_date AND day < $end_date AND EXISTS (FROM raw.events)"
    )
    tiny.declare(sql, sources={"orders": {"table": "raw.orders", "partition_column": "day"}, "events": events})
    before = digests(tiny.run(SECOND))
    tiny.source(f"UPDATE raw.events SET i = -1 WHERE i = {minutes}")
    assert (digests(tiny.run(SECOND)) != before) is stale


def test_changed_sources_with_equal_features_are_a_new_ledger_entry_but_no_new_revision(tiny):
    before = tiny.run()
    tiny.source("ALTER TABLE raw.orders ADD COLUMN unused INT DEFAULT 1")
    after = tiny.run()
    for key, result in after.items():
        assert not result.features.is_new and result.features.revision == before[key].features.revision
        assert result.features.source_digests != before[key].features.source_digests
        assert result.reused, "equal features by the same model are not scored again"
    assert tiny.warehouse("SELECT count(*) FROM ledger.extractions") == [(8,)]
    assert tiny.warehouse("SELECT count(*) FROM orders.features") == [(200,)]
