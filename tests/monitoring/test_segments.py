"""Profiles and drift by segment: each value's own rows, NULL among the values, and few values of many."""

import json

import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.errors import DeclarationError
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace

DAYS = [f"2024-03-{day:02}" for day in range(1, 22)]
MORE = """
CREATE OR REPLACE TABLE raw.orders AS
SELECT (row_number() OVER ())::INTEGER AS order_id, d::DATE AS day, * EXCLUDE (order_id, day)
FROM raw.orders, generate_series(DATE '2024-03-01', DATE '2024-03-24', INTERVAL 1 DAY) g(d)
WHERE hash(order_id, d) % 4 < 3"""


@pytest.mark.lake("always")
def test_a_segment_has_the_profiles_of_its_rows(tiny):
    tiny.declare(monitoring={"segments": ["shop", "quantity"]}, decisions={"high": "score > 0.5"})
    tiny.source("UPDATE raw.orders SET shop = NULL WHERE order_id % 5 = 0")
    tiny.run("2024-03-01", "2024-03-02")
    expected = tiny.warehouse(
        "SELECT f.partition_key, f.shop, count(*), sum(p.high::INT), avg(p.score) FROM orders.features f "
        "JOIN orders.predictions p USING (partition_key, order_id) GROUP BY ALL ORDER BY ALL"
    )
    assert {row[1] for row in expected} >= {None}
    found = tiny.warehouse(
        "SELECT h.partition_key, h.segment_value, h.rows, h.counts[2], s.mean FROM ledger.profiles h "
        "JOIN ledger.profiles s ON h.scoring_id = s.scoring_id AND h.segment = s.segment AND s.name = 'score' "
        "AND h.segment_value IS NOT DISTINCT FROM s.segment_value "
        "WHERE h.name = 'high' AND h.segment = 'shop' ORDER BY ALL"
    )
    assert found == [(*row[:4], pytest.approx(row[4])) for row in expected]
    whole, parts = (
        tiny.warehouse(
            f"SELECT partition_key, name, sum(rows), sum(missing) FROM ledger.profiles WHERE segment {of} GROUP BY ALL "
            "ORDER BY ALL"
        )
        for of in ("IS NULL", "= 'quantity'")
    )
    assert whole == parts


def test_values_beyond_fifty_count_as_one(tiny):
    tiny.declare(monitoring={"segments": ["amount"]})
    tiny.source("UPDATE raw.orders SET amount = order_id")
    tiny.source(MORE)
    tiny.run("2024-03-01")
    values = tiny.warehouse(
        "SELECT segment_value, rows FROM ledger.profiles WHERE name = 'score' AND segment IS NOT NULL"
    )
    (rows,) = tiny.warehouse("SELECT count(*) FROM orders.predictions")[0]
    assert len(values) == 51 and dict(values)["(other)"] == rows - 50


def test_the_command_lists_the_fifty_largest_segments(tiny):
    tiny.source("UPDATE raw.orders SET amount = CASE WHEN order_id % 2 = 0 THEN 7 ELSE order_id END")
    tiny.source("CREATE TABLE raw.outcomes AS SELECT order_id, day, (quantity > 5)::INT AS returned FROM raw.orders")
    (tiny.folder / "labels.sql").write_text("SELECT order_id, returned FROM raw.outcomes WHERE day = $start_date")
    sources = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
    labels = {"sql": "labels.sql", "outcome": "returned", "complete_after": "1 day"}
    tiny.declare(sources=sources, labels=labels, monitoring={"performance": {"segments": ["amount"]}})
    tiny.run()
    text = tiny.shell("performance", "orders", "--evaluate")
    assert text.count("\namount = ") == 50 and "amount = 7.0 " in text
    values = [each["segment_value"] for each in json.loads(tiny.shell("performance", "orders", "--json"))["windows"]]
    assert f"{len([*filter(None, values)]) - 50} segment values with fewer rows: --json lists them." in text


def test_drift_of_one_segment_is_in_alarm(tiny):
    tiny.declare(monitoring={"history": 14, "segments": ["shop"]})
    tiny.source(
        MORE, "UPDATE raw.orders SET amount = amount * 4, quantity = 9 WHERE day >= '2024-03-19' AND shop = 'plain'"
    )
    tiny.run(*DAYS)
    found = CliRunner().invoke(cli, ["--project", str(tiny.root), "monitor", "orders", "--json"])
    assert found.exit_code == 0, found.exception
    columns = {each["title"]: each for each in json.loads(found.stdout)[0]["columns"]}
    assert columns["score where shop = plain"]["state"] == "alarm"
    others = [c for t, c in columns.items() if t.startswith("score where") and "plain" not in t]
    assert others and all(each["state"] == "ok" for each in others)
    assert not [t for t, c in columns.items() if c["kind"] == "feature" and c["segment"]], "features are not judged"
    tiny.declare(monitoring={"history": 14})
    found = CliRunner().invoke(cli, ["--project", str(tiny.root), "monitor", "orders", "--json"])
    columns = json.loads(found.stdout)[0]["columns"]
    assert columns and not [c for c in columns if c["segment"]], "what is no longer declared would be judged for weeks"


def test_a_segment_that_is_no_column_is_refused(tiny):
    tiny.declare(monitoring={"segments": ["nowhere"]})
    with pytest.raises(DeclarationError, match=r"monitoring\.segments names nowhere"):
        tiny.run("2024-03-01")


@pytest.mark.slice
def test_a_segment_that_is_declared_later_is_profiled_by_the_backfill(tiny):
    """As if it had been declared before: also what a run judged in between, which then had no history."""
    tiny.source(MORE)
    tiny.declare(monitoring={"history": 14}, decisions={"high": "score > 0.5"})
    tiny.run(*DAYS[:19])
    tiny.declare(monitoring={"history": 14, "segments": ["shop"]}, decisions={"high": "score > 0.5"})
    tiny.run(*DAYS[19:])
    rows = "SELECT partition_key, segment, segment_value, name, rows, counts, missing FROM ledger.profiles ORDER BY ALL"
    whole = [row for row in tiny.warehouse(rows) if row[1] is None]
    out = tiny.shell("monitor", "orders", "--backfill")
    assert "19 partitions profiled" in out and "21 partitions judged" in out
    found = tiny.warehouse(rows)
    assert [row for row in found if row[1] is None] == whole, "the others are not stored twice"
    assert {row[0] for row in found if row[1] == "shop"} == {*DAYS}
    drift = "SELECT * EXCLUDE (judgement_id, judged_at) FROM ledger.live_drift WHERE segment IS NOT NULL ORDER BY ALL"
    late = tiny.published(drift.replace("ledger.live_drift", "orders.drift"))
    assert late and "0 partitions profiled" in tiny.shell("monitor", "orders", "--backfill")
    with workspace(threads=1) as con, writing(con, tiny.project, purpose="test"):
        con.execute("DELETE FROM ledger.judgements")
    tiny.shell("monitor", "orders", "--backfill")
    assert tiny.published(drift.replace("ledger.live_drift", "orders.drift")) == late
