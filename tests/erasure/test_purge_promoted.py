"""A purge of partitions that a promotion was judged by: reports lose their rows, and decisions stay as evidence."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from byte_scan import needles, scan

from pip_dagster.evidence.contents import content_faults
from pip_dagster.ledger.verify import verify
from pip_dagster.promotion.reports import newest_report
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
BIG = 7_700_000_000_000
SOURCES = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
GATES = {
    "partitions": 4,
    "max_flip_rate": 1.0,
    "max_score_psi": 99,
    "labels": {"sql": "labels.sql", "outcome": "returned"},
}


def faults(tiny):
    with workspace(threads=1) as con, reading(con, tiny.project, purpose="test"):
        return [verify(con)] + [*content_faults(con)]


@pytest.mark.slice
def test_what_a_gate_compared_is_purged_and_what_it_decided_stays(gated):
    declared = {"sources": SOURCES, "gates": GATES, "monitoring": {}}
    gated.declare(privacy={"subject": "order_id"}, **declared)
    for table in ("orders", "outcomes"):
        gated.source(f"UPDATE raw.{table} SET order_id = order_id + {BIG}")
    gated.begin_again()
    assert not any(result.error for result in gated.run(version=1).values())
    gated.registry.set_alias("returns", "champion", 1, by="ada", why="a beginning")
    gated.shell("models", "promote", "returns", "v2", "--why", "a test")
    assert gated.champion == 2
    assert not any(result.error for result in gated.run(*DAYS[:2]).values())  # by v2 as well

    report = newest_report(gated.registry.root, "returns", 2)
    assert {mover.partition_key for mover in report.movers} > {DAYS[3]}
    select, of_old = "SELECT order_id FROM raw.orders WHERE day", f"WHERE partition_key < '{DAYS[3]}'"
    old = [key for (key,) in gated.source_rows(f"{select} < '{DAYS[3]}' ORDER BY 1")][::40]
    new = [key for (key,) in gated.source_rows(f"{select} = '{DAYS[3]}' ORDER BY 1")][:3]
    old += [int("".join(filter(str.isdigit, mover.key))) for mover in report.movers if mover.partition_key != DAYS[3]]
    others = f"SELECT score FROM orders.scores WHERE partition_key = '{DAYS[3]}'"
    unlike = f"SELECT DISTINCT score FROM orders.scores {of_old} AND score NOT IN ({others}) ORDER BY 1 LIMIT 5"
    scores = [score for (score,) in gated.warehouse(unlike)]
    evidence = "SELECT scoring_id, model_version, rows_scored FROM ledger.scorings ORDER BY 1"
    before = gated.warehouse(evidence)

    def left(*values):
        found = {each.place for each in scan(gated.root, needles(*values))}
        return {place for place in found if "sources.duckdb" not in place}

    assert any("reports" in place for place in left(*old))
    days = (datetime.now(UTC) - datetime.fromisoformat(DAYS[3]).replace(tzinfo=UTC)).days
    gated.declare(privacy={"subject": "order_id", "retention": {"content": f"{days} days"}}, **declared)
    done = json.loads(gated.shell("purge", "--json"))
    assert done["partitions"]["orders"].keys() == {*DAYS[:3]}
    assert left(*old) == set() and left(*new)
    assert scores and not {place for place in left(*scores) if "registry" not in place}

    assert gated.warehouse(evidence) == before and faults(gated) == [None]
    after = newest_report(gated.registry.root, "returns", 2)
    assert after.results == report.results and after.segments == report.segments
    assert {mover.partition_key for mover in after.movers} == {DAYS[3]}
    assert "a test" in gated.shell("models", "history", "returns")
    gated.shell("models", "rollback", "orders", "--to", "v1", "--why", "a test")
    assert not gated.warehouse(f"SELECT 1 FROM orders.predictions {of_old}")
