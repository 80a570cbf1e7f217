"""Findings of operations over real runs: a change is a warning with its cause, the days before it are not."""

import pytest

from pip_dagster.cli.published import open_published
from pip_dagster.monitoring.operations import collect_operations, operations_findings
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

DAYS = [f"2024-03-{day:02}" for day in range(1, 18)]
MORE = """
CREATE OR REPLACE TABLE raw.orders AS
SELECT (row_number() OVER ())::INTEGER AS order_id, d::DATE AS day, * EXCLUDE (order_id, day)
FROM raw.orders, generate_series(DATE '2024-03-01', DATE '2024-03-17', INTERVAL 1 DAY) g(d)"""


def findings(tiny, key=None):
    options = {"keys": [key]} if key else {}
    with workspace(threads=1) as con, reading(con, tiny.project, purpose="test"):
        found = operations_findings(con, tiny.pipeline(), **options)
    with open_published(tiny.project) as con:
        assert operations_findings(con, tiny.pipeline(), **options) == found, "as published"
    assert all(each.event == "operations" and each.state != "alarm" for each in found)
    return {each.subject: each for each in found}


@pytest.fixture
def changed(tiny):
    """The last day has a new shop in a tenth of its rows; 14 days of history are enough by `history`."""
    tiny.declare(monitoring={"history": 16}, scoring={"on_unseen_category": "quarantine"})
    tiny.source(MORE, f"UPDATE raw.orders SET shop = 'new' WHERE day = '{DAYS[-1]}' AND order_id % 10 = 0")
    assert all(each.scoring for each in tiny.run(*DAYS).values())
    return tiny


def test_quarantined_rows_and_unseen_categories(changed):
    found = findings(changed)
    assert found["quarantined rows"].state == "warning" and found["quarantined rows"].value == pytest.approx(
        0.1, abs=0.02
    )
    assert found["quarantined rows"].threshold < 0.05 and found["quarantined rows"].rows == 200
    assert "20 of 200 rows; at most" in found["quarantined rows"].cause
    assert found["unseen categories"].state == "warning" and "new values of shop" in found["unseen categories"].cause
    assert found["unseen categories"].command == f"pip-dagster lineage orders {DAYS[-1]}"
    assert found["rows per CPU second"].state == "ok"
    before = findings(changed, key=DAYS[-2])
    assert {each.state for each in before.values()} == {"ok"} and before["quarantined rows"].partition_key == DAYS[-2]
    early = findings(changed, key=DAYS[5])
    assert {each.state for each in early.values()} == {"unjudged"} and early["quarantined rows"].threshold is None
    assert not findings(changed, key="2024-03-25"), "not live"


@pytest.mark.slice
def test_half_of_the_throughput(changed):
    changed.tamper("UPDATE ledger.scorings SET cpu_seconds = 4 WHERE partition_key < '2024-03-16'")
    changed.tamper("UPDATE ledger.scorings SET cpu_seconds = 9 WHERE partition_key >= '2024-03-16'")
    changed.shell("publish")
    found = findings(changed)["rows per CPU second"]
    assert found.state == "warning" and found.threshold == pytest.approx(25, rel=0.01) and found.value < 25
    assert findings(changed, key=DAYS[-2])["rows per CPU second"].state == "ok", "one alone"
    changed.tamper("UPDATE ledger.scorings SET engine = 'older' WHERE partition_key < '2024-03-16'")
    changed.shell("publish")
    assert findings(changed)["rows per CPU second"].state == "unjudged", "with other libraries"
    changed.tamper("UPDATE ledger.scorings SET cpu_seconds = NULL")
    changed.shell("publish")
    assert findings(changed)["rows per CPU second"].value is None


def test_many_partitions_at_once_are_judged_as_one_by_one(changed):
    wanted = [DAYS[16], DAYS[3], DAYS[15], "2024-03-25"]
    with workspace(threads=1) as con, reading(con, changed.project, purpose="test"):
        together = operations_findings(con, changed.pipeline(), keys=wanted)
        each = [operations_findings(con, changed.pipeline(), keys=[key]) for key in sorted(wanted, reverse=True)]
    assert together == [found for some in each for found in some] and len(together) == 9
    with workspace(threads=1) as con:
        assert collect_operations(con, changed.pipeline(), None, wanted) == together
