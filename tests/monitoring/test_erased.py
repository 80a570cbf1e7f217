"""After an erasure monitoring goes on: what it had found of the partitions that lost rows is found again."""

from __future__ import annotations

import pytest

from pip_dagster.flow.labels import live_bases
from pip_dagster.monitoring.watch import watch_scored
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace

from .test_performance import DAYS, LABELS, SOURCES, WORLD

DUE = "WHERE day >= $start_date AND day < $end_date"
SQL = f"SELECT order_id, day, gift, shop, quantity, amount, who FROM raw.orders {DUE}"
FIGURES = {
    "profiles": "SELECT * EXCLUDE (scoring_id, made_at) REPLACE (round(mean, 9) AS mean, round(sd, 9) AS sd) "
    "FROM ledger.profiles ORDER BY ALL",
    "drift": "SELECT * EXCLUDE (judgement_id, judged_at) FROM ledger.live_drift WHERE partition_key >= '2024-03-24' "
    "ORDER BY ALL",
    "performance": "SELECT partition_key, segment, segment_value, metric, round(value, 9), rows, labelled "
    "FROM orders.performance ORDER BY ALL",
}


@pytest.fixture
def shop(tiny):
    """A person has orders on most days."""
    tiny.source(
        *WORLD, "ALTER TABLE raw.orders ADD COLUMN who INTEGER", "UPDATE raw.orders SET who = hash(order_id) % 150"
    )
    (tiny.folder / "labels.sql").write_text(f"SELECT order_id, returned FROM raw.outcomes {DUE}")
    labels = {**LABELS, "complete_after": "1 day"}
    rules = {"history": 14, "segments": ["shop"]}
    tiny.declare(SQL, sources=SOURCES, labels=labels, monitoring=rules, privacy={"subject": "who"})
    tiny.run(*DAYS[:23])
    tiny.shell("performance", "orders", "--evaluate")
    tiny.shell("estimate", "orders", "--backfill")
    return tiny


def figures(tiny):
    return {name: tiny.warehouse(sql) for name, sql in FIGURES.items()}


@pytest.mark.slice
def test_after_an_erasure_everything_is_found_again(shop):
    (estimated,) = shop.warehouse("SELECT count(DISTINCT partition_key) FROM orders.estimates WHERE metric <> ''")
    before = live_bases(shop.pipeline(), DAYS[:23])
    shop.shell("erase", "--subject", "7", "--why", "request 17")
    (lost,) = shop.warehouse("SELECT count(DISTINCT partition_key) FROM ledger.erased_partitions")[0]
    after = live_bases(shop.pipeline(), DAYS[:23])
    assert lost > 10 and sum(before[key] != after[key] for key in before) == lost, "the sensor evaluates them"
    text = shop.shell("performance", "orders")
    assert f"{23 - lost} mature, {lost} waiting" in text and "overdue" not in text
    shop.run(DAYS[23])
    watched = watch_scored(shop.pipeline(), None, [DAYS[23]])
    assert not watched.faults
    judged = [each.state for each in watched.of("drift") if each.rule == "drift"]
    assert judged and "unjudged" not in judged, "there is a history"
    estimates = "SELECT count(DISTINCT partition_key) FROM orders.estimates WHERE metric <> ''"
    assert shop.warehouse(estimates) == [(estimated[0] + 1,)]
    shop.shell("performance", "orders", "--evaluate")
    found = figures(shop)
    assert all(found.values())
    with workspace(threads=1) as con, writing(con, shop.project, purpose="test"):
        for table in ("profiles", "judgements", "drift", "evaluations", "performance"):
            con.execute(f"DELETE FROM ledger.{table}")
    shop.shell("monitor", "orders", "--backfill")
    shop.shell("performance", "orders", "--evaluate")
    assert figures(shop) == found
