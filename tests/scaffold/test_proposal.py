"""What tables of many kinds propose for a pipeline, and what is refused."""

from __future__ import annotations

from datetime import date

import duckdb
import pytest

from pip_dagster.errors import ScaffoldError
from pip_dagster.scaffold.proposal import Proposal, Wishes, propose


@pytest.fixture
def con():
    with duckdb.connect() as opened:
        opened.execute("SET TimeZone = 'UTC'")
        yield opened


def proposed(con, columns: str, rows: int = 1000, **wishes) -> Proposal:
    con.execute(f"CREATE TABLE t AS SELECT {columns} FROM range({rows}) AS r(i)")
    return propose(con, "raw.t", "t", Wishes(**wishes))


DAY = "DATE '2024-01-01' + (i // 20)::INTEGER AS day"


def test_a_column_called_an_id_is_the_key_before_another_that_is_unique_too(con):
    assert proposed(con, f"i * 3 AS weight, i AS order_id, {DAY}").key == ("order_id",)


def test_two_columns_are_the_key_where_none_is_unique(con):
    assert set(proposed(con, f"i % 40 AS shop_no, i // 40 AS order_no, {DAY}, i % 7 AS items").key) == {
        "shop_no",
        "order_no",
    }


def test_a_unique_column_with_a_null_is_no_key(con):
    columns = f"CASE WHEN i > 0 THEN i END AS order_id, i AS line, {DAY}, i % 7 AS items"
    assert proposed(con, columns).key == ("line",)


def test_when_a_row_was_changed_is_not_when_it_is_from(con):
    times = "TIMESTAMP '2024-05-01' AS updated_at, TIMESTAMP '2024-01-01' + to_hours(i) AS ordered_at"
    columns = f"i AS id, {times}, i % 7 AS items"
    found = proposed(con, columns)
    assert (found.partition_column, found.partition_type, found.start) == ("ordered_at", "TIMESTAMP", date(2024, 1, 1))


@pytest.mark.parametrize(
    ("step", "every"), [("to_seconds(i)", "hour"), ("to_hours(i)", "day"), ("to_days((i * 5)::INTEGER)", "month")]
)
def test_partitions_are_as_long_as_the_rows_are_dense(con, step, every):
    columns = f"i AS id, TIMESTAMPTZ '2024-01-01 00:00:00+00' + {step} AS at, i % 7 AS x"
    assert proposed(con, columns, rows=2000).every == every


def test_features_are_numbers_booleans_and_texts_of_few_values_and_each_other_column_has_a_reason(con):
    columns = f"""i AS id, {DAY}, i / 7 AS amount, (i % 9)::DECIMAL(10, 2) AS price, i % 2 = 0 AS gift,
        'shop ' || i % 5 AS shop, 'text ' || i AS note, 1 AS one, i::BIGINT AS customer_id, [i] AS list,
        now() AS loaded_at, i % 2 AS "back[1]" """
    found = proposed(con, columns)
    assert [(each.name, each.is_category) for each in found.features] == [
        *(("amount", False), ("price", False), ("gift", False), ("shop", True), ("back_1_", False))
    ]
    assert {each.name: each.cast for each in found.features if each.cast} == {"price": "DOUBLE", "gift": "INTEGER"}
    reasons = dict(found.left_out)
    assert set(reasons) == {"note", "one", "customer_id", "list", "loaded_at"}
    assert reasons["one"] == "one value only"
    assert "identifier" in reasons["customer_id"]


@pytest.mark.parametrize("name", ["Trip ID", "TripId", "trip-no", "ACCOUNT NUMBER", "customerID"])
def test_an_identifier_is_known_by_its_name_however_it_is_written(con, name):
    found = proposed(con, f'i AS id, {DAY}, i % 7 AS x, i::BIGINT AS "{name}", i::BIGINT AS humid')
    assert [each.name for each in found.features] == ["x", "humid"] and name in dict(found.left_out)


def test_a_number_may_be_nan_or_infinite(con):
    odd = "CASE i WHEN 3 THEN 'nan'::DOUBLE WHEN 4 THEN 'inf'::DOUBLE ELSE i END AS x"
    assert [each.name for each in proposed(con, f"i AS id, {DAY}, {odd}").features] == ["x"]


def test_two_columns_that_xgboost_names_alike_are_two_features(con):
    columns = f'i AS id, {DAY}, i % 7 AS "a[", i % 5 AS "A<", i % 3 AS a_, i % 4 AS "b]"'
    found = {each.column: each.name for each in proposed(con, columns).features}
    assert found == {"a[": "a__2", "A<": "A__3", "a_": "a_", "b]": "b_"}


@pytest.mark.parametrize("odd", ["infinity", "-infinity", "0044-03-15 (BC)"])
def test_a_day_that_no_partition_can_have_does_not_say_where_partitions_start(con, odd):
    columns = f"i AS id, CASE WHEN i = 5 THEN DATE '{odd}' ELSE DATE '2024-01-01' + (i // 20)::INTEGER END AS day"
    found = proposed(con, f"{columns}, i % 7 AS x")
    assert (found.start, found.every) == (date(2024, 1, 1), "day")


def test_the_outcome_is_no_feature_and_says_the_task(con):
    found = proposed(con, f"i AS id, {DAY}, i % 7 AS x, i % 3 = 0 AS late", outcome="LATE")
    assert (found.outcome, found.is_binary) == ("late", True)
    assert [each.name for each in found.features] == ["x"]
    assert dict(found.left_out)["late"] == "the outcome: not known when a row is scored"


@pytest.mark.parametrize(("values", "is_binary"), [("i % 2", True), ("i % 3", False), ("i / 3", False)])
def test_zeros_and_ones_are_binary_and_other_numbers_a_regression(con, values, is_binary):
    assert proposed(con, f"i AS id, {DAY}, i % 7 AS x, {values} AS y", outcome="y").is_binary is is_binary


@pytest.mark.parametrize(
    ("columns", "rows", "wishes", "message"),
    [
        (f"i AS id, {DAY}, i % 7 AS x", 0, {}, "has no rows"),
        ("i AS id, i % 7 AS x, '2024-01-01' AS day", 10, {}, "no DATE or TIMESTAMP column without NULLs"),
        ("i AS id, i % 7 AS x, CASE WHEN i > 1 THEN DATE '2024-01-01' END AS day", 10, {}, "without NULLs"),
        (f"i % 3 AS id, {DAY}, i % 7 AS x", 1000, {}, "--key COLUMN"),
        (f"i AS id, {DAY}, i % 7 AS x", 10, {"key": ("x",)}, "x is NULL or repeated"),
        (f"i AS id, {DAY}, i % 7 AS x", 10, {"key": ("nope",)}, "has no column nope; it has id, day, x"),
        (f"i AS id, {DAY}, i % 7 AS x", 10, {"partition_column": "x"}, "partition column x is BIGINT"),
        (f"i AS id, {DAY}, i % 7 AS x, 'a' AS y", 10, {"outcome": "y"}, "outcome y is VARCHAR"),
        (f"i AS id, {DAY}", 10, {}, r"no column that a model could read \(only its key and partition column\)"),
        ("i AS id, DATE 'infinity' AS day, i % 7 AS x", 10, {}, "no day from year 1 to 9999"),
    ],
)  # fmt: skip
def test_what_cannot_be_proposed_is_refused_with_the_reason(con, columns, rows, wishes, message):
    with pytest.raises(ScaffoldError, match=message):
        proposed(con, columns, rows, **wishes)


def test_of_hundreds_of_columns_an_error_lists_the_first_and_the_one_that_was_meant(con):
    many = ", ".join(f"i % {n} AS c{n}" for n in range(2, 300))
    with pytest.raises(ScaffoldError, match=r"c20 and 280 more\. Did you mean Ordered\?$"):
        proposed(con, f"i AS id, {many}, DATE '2024-01-01' AS \"Ordered\"", 10, partition_column="orderd")
    con.execute("DROP TABLE t")
    with pytest.raises(ScaffoldError, match=r"c20 BIGINT and 279 more\)"):
        proposed(con, f"i AS id, {many}", 10)
