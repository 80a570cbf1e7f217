"""Many at once: writers on different and on the same partitions, readers, a sensor; nobody meets a lock."""

import json
import statistics
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from pip_dagster.ledger.promotions import alias_moves
from pip_dagster.ledger.verify import verify
from pip_dagster.warehouse.connect import open_warehouse, workspace

HARNESS = Path(__file__).with_name("at_once.py")
ROWS = 5  # a partition: what is tried is the waiting, not the scoring


def many_days(tiny, days):
    """The project with this many small partitions, all of them past."""
    start = date(2014, 1, 1)
    tiny.source(
        f"CREATE OR REPLACE TABLE raw.orders AS SELECT o.* REPLACE (o.order_id + {ROWS} * d AS order_id, "
        f"DATE '{start}' + d::INT AS day) FROM raw.orders o, range({days}) t(d) WHERE o.order_id < {ROWS}"
    )
    end = start + timedelta(days=days)
    tiny.declare(
        partitions={"start": start.isoformat(), "end": end.isoformat()},
        sensors={"source_changes": {"missing": "all", "lock_deadline": 30}},
    )
    return [(start + timedelta(days=day)).isoformat() for day in range(days)]


def assert_sound(tiny, days):
    """Every partition once, live by one scoring, whole, as plain XGBoost scores it; chain and publishing up to date."""
    live = tiny.warehouse("SELECT partition_key, count(*) FROM ledger.live GROUP BY 1 ORDER BY 1")
    assert live == [(day, 1) for day in days]
    each = (
        "SELECT partition_key, count(*), count(DISTINCT order_id), count(DISTINCT scoring_id) FROM orders.predictions"
    )
    for rows_of in (tiny.warehouse, tiny.published):
        assert rows_of(f"{each} GROUP BY 1 ORDER BY 1") == [(day, ROWS, ROWS, 1) for day in days]
    assert tiny.scores() == tiny.expected()
    torn = """SELECT s.scoring_id FROM ledger.scorings s LEFT JOIN orders.scores o USING (scoring_id)
      WHERE status = 'scored' GROUP BY ALL HAVING any_value(s.rows_scored) <> count(DISTINCT o.order_id)"""
    assert tiny.warehouse(torn) == []
    assert tiny.warehouse("SELECT count(*) FROM ledger.scorings WHERE status <> 'scored'") == [(0,)]
    again = "SELECT partition_key FROM ledger.extractions WHERE is_new GROUP BY ALL HAVING count(*) > 1"
    assert tiny.warehouse(again) == [], "equal content makes one revision"
    pending = "SELECT count(*) FROM ledger.live_changes c ANTI JOIN ledger.publications p ON p.change_id = c.change_id"
    assert tiny.warehouse(pending) == [(0,)]
    with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="test", read_only=True):
        assert verify(con, moves=alias_moves(tiny.registry)) is None


def at_once(tiny, days, *, in_one_run, pause, timeout):
    """All of it, on so many partitions; a report of who waited how long."""
    keys = many_days(tiny, days)
    command = [sys.executable, str(HARNESS), str(ROWS), str(in_one_run), str(pause)]
    done = subprocess.run(command, cwd=tiny.root, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert {name: each["errors"] for name, each in said.items()} == dict.fromkeys(said, [])
    assert sum(each.get("stored", 0) for each in said.values()) == 3 * days
    for name in ("reader 0", "reader 1", "reader 2"):
        assert said[name]["torn"] == [] and said[name]["reads"] > 1
    sensor = said["sensor"]
    assert sensor["plans"] and len(sensor["skipped"]) < sensor["looks"], sensor["skipped"]
    waits = sorted(wait for each in said.values() for wait in each.get("waits", ()))
    report = {
        "waits": len(waits),
        "median": statistics.median(waits),
        "p99": waits[int(0.99 * len(waits))],
        "longest": {name: max(each["waits"], default=0.0) for name, each in said.items() if "waits" in each},
        "seconds": {name: each["seconds"] for name, each in said.items()},
        "looks, skipped, plans": (sensor["looks"], len(sensor["skipped"]), sensor["plans"]),
    }
    print(json.dumps(report))
    assert_sound(tiny, keys)
    # Seven take turns, each of them about a second: nobody waits for more than everybody else's, by some margin.
    assert waits[-1] < max(30, 20 * report["median"]), report
    longest = sorted(report["longest"].values())
    assert longest[-1] < max(10, 6 * statistics.median(longest)), f"somebody was starved: {report}"
    return report


@pytest.mark.slice
def test_writers_readers_and_a_sensor(tiny):
    at_once(tiny, 60, in_one_run=15, pause=0.2, timeout=600)


@pytest.mark.soak
def test_writers_readers_and_a_sensor_over_ten_years(tiny):
    at_once(tiny, 3500, in_one_run=100, pause=0.2, timeout=3600)


@pytest.mark.lake("only")
@pytest.mark.soak
def test_writers_readers_and_a_sensor_on_a_lake(tiny):
    at_once(tiny, 60, in_one_run=15, pause=0.5, timeout=1800)
