"""Feature SQL: what it may be, what its rows must be, and what becomes a revision."""

from pathlib import Path

import pytest

from pip_dagster.errors import DeclarationError, SourceError

pytestmark = pytest.mark.lake


BOUNDED = "FROM raw.orders WHERE day >= $start_date AND day < $end_date"
SELECT = f"SELECT order_id, day, amount, quantity, gift, shop {BOUNDED}"
FIRST, SECOND = "2024-03-01", "2024-03-02"


def refused(tiny, sql, message, **changes):
    tiny.declare(sql, **changes)
    with pytest.raises(DeclarationError, match=message) as caught:
        tiny.run()
    assert "Pipeline orders, features.sql" in str(caught.value)
    if isinstance(tiny.project.warehouse, Path):  # a lake has a catalog from the start
        assert not tiny.project.warehouse.exists(), "a declaration that cannot work stores nothing"


def revisions(tiny):
    return tiny.warehouse("SELECT partition_key, count(DISTINCT revision) FROM orders.features GROUP BY ALL ORDER BY 1")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT order_id, day FROM raw.orders", "reads no bounds"),
        ("SELECT order_id, day FROM raw.orders WHERE day = $d0", r"\$d0 is no parameter .*expected \$end, \$end_date"),
        (SELECT + "; " + SELECT, "has 2 statements; expected exactly one SELECT"),
        ("DROP TABLE raw.orders", "exactly one SELECT"),
        ("", "has 0 statements; expected exactly one SELECT"),
        ("SELEC 1", "cannot be parsed: .*syntax error"),
        (SELECT.replace("amount", "amout"), '"amout" not found'),
        (SELECT.replace("raw.orders", "raw.order_lines"), "reads 'raw.order_lines', which is not a declared source"),
        (SELECT.replace("day, amount", "day, amount, amount"), "two columns have one name: amount, amount"),
        (SELECT.replace("day, amount", 'day, amount, 1 AS "Amount"'), "two columns have one name: amount, Amount"),
        (SELECT.replace("order_id,", ""), "no column 'order_id' in its result, which has day"),
        (SELECT.replace("day, amount", "day AS date, amount"), "no column 'day'"),
        (SELECT.replace("quantity", "quantity, 1 AS revision"), "revision is the warehouse's own name"),
        (SELECT.replace("quantity", "quantity, 1 AS Partition_Key"), "partition_key is the warehouse's own name"),
        (SELECT.replace("day, amount", "day::VARCHAR AS day, amount"), "'day' is VARCHAR; expected DATE or TIMESTAMP"),
    ],
)
def test_sql_that_cannot_work_is_refused_before_a_row_is_read(tiny, sql, message):
    refused(tiny, sql, message)


def test_a_table_that_is_not_declared_does_not_exist(tiny):
    tiny.source("CREATE TABLE raw.secret AS SELECT 1 AS a")
    refused(tiny, SELECT + " AND order_id > (SELECT max(a) FROM raw.secret)", "reads 'raw.secret', which is not a")


@pytest.mark.parametrize(
    "sql",
    [
        SELECT + ";",
        SELECT + "\n;\n-- the end",
        SELECT + " AND shop <> ';--' ; ; -- the; end;",
        SELECT + " AND shop <> ';--' /* ; */",
        SELECT + " -- the end",
        "-- first\n/* $not_a_parameter; */ " + SELECT + " AND shop <> ';$x'",
        "WITH o AS (FROM raw.orders) " + SELECT.replace("raw.orders", "o"),
        SELECT.replace("$start_date", "$start::DATE").replace("$end_date", "$end::DATE"),
        SELECT + " ORDER BY order_id",
    ],
)
def test_semicolons_and_comments_do_not_matter(tiny, sql):
    tiny.declare(sql).run(FIRST)
    assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")


@pytest.mark.parametrize(
    ("sql", "outside", "which"),
    [
        (SELECT.replace("day < $end_date", "day <= $end_date"), 50, "by their day"),
        (SELECT.replace("day >= $start_date", "day >= $start_date - 1"), 50, "by their day"),
        (
            SELECT.replace("order_id, day", "order_id, CASE WHEN order_id = 60 THEN NULL ELSE day END AS day"),
            *(1, "1 of them with a NULL in day"),
        ),
    ],
)
def test_rows_outside_the_range_are_refused_and_counted(tiny, sql, outside, which):
    tiny.declare(sql)
    with pytest.raises(DeclarationError, match=rf"{outside} rows? outside .*, {which}\. .*half-open"):
        tiny.run(SECOND)
    assert not tiny.project.warehouse.exists()


class TestOneBadPartition:
    def fails_alone(self, tiny, *words):
        results = tiny.run()
        assert [key for key, result in results.items() if result.error] == [SECOND]
        for word in words:
            assert word in results[SECOND].error
        assert tiny.scores() == tiny.expected(f"day <> '{SECOND}'")
        assert SECOND not in dict(revisions(tiny))

    def test_with_a_key_that_is_null(self, tiny):
        tiny.source("UPDATE raw.orders SET order_id = NULL WHERE order_id IN (60, 61)")
        self.fails_alone(tiny, "2 rows with a NULL in the key (order_id)")

    def test_with_a_key_that_occurs_twice(self, tiny):
        tiny.source("INSERT INTO raw.orders SELECT * FROM raw.orders WHERE order_id = 60")
        self.fails_alone(tiny, "1 key (order_id) occurs more than once, in 2 rows", "a join")

    def test_with_a_row_on_which_the_sql_fails(self, tiny):
        tiny.source("UPDATE raw.orders SET shop = 'seven' WHERE order_id = 60")
        guard = "CASE WHEN shop = 'seven' THEN shop::INT ELSE 0 END AS parsed"
        tiny.declare(SELECT.replace("amount,", f"amount, {guard},"))
        self.fails_alone(
            tiny, "the feature SQL fails", "Could not convert string … to INT32 when casting from source column"
        )


def test_a_key_may_occur_once_in_each_partition(tiny):
    tiny.source("UPDATE raw.orders SET order_id = order_id % 50")
    results = tiny.run()
    assert [result.scoring.rows_scored for result in results.values()] == [50] * 4
    assert tiny.published("SELECT count(*), count(DISTINCT order_id) FROM orders.predictions") == [(200, 50)]


def test_equal_content_makes_no_new_revision_and_changed_content_keeps_the_old(tiny):
    first = tiny.run()
    tiny.declare(SELECT.replace("gift", "gift, 'not a feature' AS note") + " ORDER BY shop")
    reordered = tiny.run()
    assert all(result.features.is_new for result in reordered.values()), "another set of columns is new content"
    again = tiny.run()
    assert all(result.features == reordered[key].features for key, result in again.items())

    tiny.source("UPDATE raw.orders SET amount = 1 WHERE order_id = 60")
    changed = tiny.run()
    assert [key for key, result in changed.items() if result.features.revision != again[key].features.revision] == [
        SECOND
    ]
    kept = tiny.warehouse(
        "SELECT revision, amount FROM orders.features "
        f"WHERE order_id = 60 AND partition_key = '{SECOND}' ORDER BY revision"
    )
    assert [revision for revision, _ in kept] == [
        made[SECOND].features.revision for made in (first, reordered, changed)
    ]
    assert kept[-1][1] == 1.0 and kept[0][1] == kept[1][1] != 1.0


def test_content_that_returns_to_what_it_was_is_a_revision_of_its_own(tiny):
    before = tiny.run(SECOND)[SECOND].features
    tiny.source("UPDATE raw.orders SET quantity = quantity + 1 WHERE order_id = 60")
    tiny.run(SECOND)
    tiny.source("UPDATE raw.orders SET quantity = quantity - 1 WHERE order_id = 60")
    after = tiny.run(SECOND)[SECOND].features
    assert after.feature_digest == before.feature_digest and after.revision != before.revision
    assert revisions(tiny) == [(SECOND, 3)]


def test_an_empty_partition_is_materialized_with_zero_rows(tiny):
    empty = "2024-03-20"
    result = tiny.run(SECOND, empty)[empty]
    assert result.error is None
    assert (result.features.rows_extracted, result.scoring.rows_in, result.scoring.rows_scored) == (0, 0, 0)
    assert result.scoring.mean_score is None
    assert tiny.run(empty)[empty].reused
    live = tiny.published("SELECT partition_key, rows_scored FROM ledger.partitions WHERE is_live ORDER BY ALL")
    assert live == [(SECOND, 50), (empty, 0)]
    assert tiny.published("SELECT DISTINCT partition_key FROM orders.predictions") == [(SECOND,)]


def test_a_partition_may_become_empty(tiny):
    tiny.run(SECOND)
    tiny.source(f"DELETE FROM raw.orders WHERE day = '{SECOND}'")
    assert tiny.run(SECOND, allow_fewer_rows=True)[SECOND].scoring.rows_scored == 0
    assert tiny.published("SELECT count(*) FROM orders.predictions") == [(0,)]


def test_keys_of_several_columns_with_unkind_names_and_values(tiny):
    key = ['Bestell"nr', "Ladenname in 東京", "from"]
    columns = """order_id::VARCHAR || '''x"' AS "Bestell""nr", shop AS "Ladenname in 東京",
                 (order_id * 1e15)::DECIMAL(38, 2) AS "from", order_id"""
    tiny.declare(SELECT.replace("order_id", columns, 1), features={"key": key})
    result = tiny.run()
    assert not any(each.error for each in result.values())
    rows = tiny.published('SELECT "Bestell""nr", "Ladenname in 東京", "from"::VARCHAR, score FROM orders.predictions')
    expected = tiny.expected()
    shops = dict(tiny.source_frame()[["order_id", "shop"]].itertuples(index=False))
    assert sorted(rows) == sorted(
        (f"{order}'x\"", shops[order], f"{order * 10**15}.00", score) for order, score in expected.items()
    )


@pytest.mark.parametrize(
    ("kind", "offset"),
    [("HUGEINT", 2**100), ("UBIGINT", 2**63 + 5), ("BIGINT", 2**60), ("UUID", None), ("DATE", None), ("ENUM", None)],
)
def test_keys_of_any_type_come_out_as_they_went_in(tiny, kind, offset):
    made = {"UUID": "md5(order_id::VARCHAR)::UUID", "DATE": "DATE '1900-01-01' + order_id::INT"}
    made["ENUM"] = "('k' || order_id)::ENUM(" + ", ".join(f"'k{order}'" for order in range(200)) + ")"
    expression = made.get(kind) or f"({offset}::HUGEINT + order_id)::{kind}"
    tiny.declare(SELECT.replace("order_id", f"{expression} AS key", 1), features={"key": ["key"]})
    if kind in ("HUGEINT", "ENUM") and not isinstance(tiny.project.warehouse, Path):
        with pytest.raises(DeclarationError, match=f"column 'key' of its features is {kind}"):
            tiny.run(FIRST)
        return
    tiny.run(FIRST)
    frame = tiny.source_frame(f"day = '{FIRST}'")
    with_keys = tiny.published("SELECT key, score FROM orders.predictions ORDER BY key")
    assert len(with_keys) == len(frame) == len({key for key, _ in with_keys})
    if offset:
        assert dict(with_keys) == {offset + order: score for order, score in tiny.expected(f"day = '{FIRST}'").items()}


def test_a_key_that_no_file_could_hold_fails_rather_than_lose_its_last_digit(tiny):
    key = "(170141183460469231731687303715884100000::HUGEINT + order_id) AS key"
    tiny.declare(SELECT.replace("order_id", key, 1), features={"key": ["key"]})
    result = tiny.run(FIRST)[FIRST]
    assert "key has more digits in 50 rows" in result.error and "cast it to VARCHAR" in result.error


def test_a_missing_source_names_what_is_there(tiny):
    tiny.declare(SELECT.replace("raw.orders", "raw.order"), sources={"orders": {"table": "raw.order"}})
    with pytest.raises(SourceError, match=r"source 'orders' \(raw\.order\).*Did you mean raw\.orders\?"):
        tiny.run()
    tiny.declare(SELECT, sources={"orders": {"table": "raw.orders", "partition_column": "date"}})
    with pytest.raises(SourceError, match=r"has no column 'date'.*It has: order_id, day"):
        tiny.run()
    tiny.declare(source_database="gone.duckdb")
    with pytest.raises(SourceError, match=r"There is no DuckDB file .*gone\.duckdb"):
        tiny.run()


def test_a_partition_whose_features_cannot_be_made_is_in_the_ledger_with_the_reason(tiny):
    tiny.source(f"UPDATE raw.orders SET order_id = 60 WHERE day = '{SECOND}' AND order_id = 61")
    result = tiny.run()[SECOND]
    (row,) = tiny.published(f"SELECT status, reason, is_live FROM ledger.partitions WHERE partition_key = '{SECOND}'")
    assert row == ("failed", result.error, False) and "occurs more than once" in result.error


@pytest.mark.slice
@pytest.mark.lake("never")
def test_a_limit_without_an_order_takes_the_same_rows_each_time(tiny):
    """As in any DuckDB; our own steps keep no order. With none kept, most of ten tries differed."""
    tiny.source(
        f"CREATE OR REPLACE TABLE raw.orders AS SELECT o.* REPLACE (i AS order_id, '{FIRST}'::DATE AS day) "
        "FROM (FROM raw.orders LIMIT 1) o, range(800000) r(i)"
    )
    sql = (tiny.folder / "features.sql").read_text()
    (tiny.folder / "features.sql").write_text(f"{sql.rstrip().rstrip(';')} LIMIT 200000")
    digests = {tiny.run(FIRST, predictions=False)[FIRST].features.feature_digest for _ in range(6)}
    assert len(digests) == 1
