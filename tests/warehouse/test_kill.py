"""kill -9 at any moment: a partition is wholly old or wholly new, and the next run catches up."""

import random
import time

import pytest

from pip_dagster.cli.published import open_published
from pip_dagster.declaration.lake import Lake
from pip_dagster.ledger.promotions import alias_moves
from pip_dagster.ledger.verify import verify
from pip_dagster.warehouse.connect import open_warehouse, workspace

# `materialize` again and again, the sources changed in between, so that a kill meets every step of it.
WORK = """
import sys, time
from datetime import datetime, timedelta, timezone
import duckdb, xgboost, yaml
from pip_dagster.flow.materialize import materialize
from pip_dagster.declaration.partition import Partition
from pip_dagster.ledger.record import RunInfo
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec

project = Project.find()
folder = project.root / "acme" / "defs" / "orders"
spec = PipelineSpec.model_validate(yaml.safe_load((folder / "defs.yaml").read_text())["attributes"])
pipeline = Pipeline.load(spec, folder, project)
starts = [datetime(2024, 3, day, tzinfo=timezone.utc) for day in (1, 2, 3, 4)]
partitions = [Partition(f"{start:%Y-%m-%d}", start, start + timedelta(days=1)) for start in starts]
print("ready", flush=True)
while True:
    with duckdb.connect("sources.duckdb") as con:
        con.execute("UPDATE raw.orders SET quantity = 1 + (quantity + 1) % 8")
    list(materialize(pipeline, partitions, RunInfo("killed", "a test")))
    print("done", flush=True)
"""


def assert_whole(tiny):
    """Every partition is one scoring's rows, all of them, and the ledger says the same as the tables."""
    torn = tiny.warehouse(
        """SELECT s.partition_key, s.scoring_id, s.rows_scored, count(o.order_id)
        FROM ledger.scorings s LEFT JOIN orders.scores o USING (scoring_id) WHERE status = 'scored' GROUP BY ALL
        HAVING s.rows_scored <> count(o.order_id) OR s.rows_in <> 50"""
    )
    assert torn == []
    for table, column, ledger in (("scores", "scoring_id", "scorings"), ("features", "revision", "extractions")):
        assert tiny.warehouse(f"SELECT * FROM orders.{table} ANTI JOIN ledger.{ledger} USING ({column})") == []
    short = "SELECT revision FROM orders.features GROUP BY revision HAVING count(*) <> 50"
    assert tiny.warehouse(short) == []
    live = tiny.warehouse(
        "SELECT partition_key, count(*), count(DISTINCT scoring_id) FROM orders.predictions GROUP BY 1"
    )
    assert sorted(live) == [(f"2024-03-0{day}", 50, 1) for day in (1, 2, 3, 4)]
    with open_published(tiny.project) as con:
        found = con.execute(
            "SELECT partition_key, count(*), count(DISTINCT scoring_id) FROM orders.predictions GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert found == sorted(live), "what is published is whole as well, though it may be a commit behind"


def kill_at_random(tiny, times, seed):
    within = 4 if isinstance(tiny.project.warehouse, Lake) else 1.5  # seconds, about a run of four days and a half
    chance = random.Random(seed)
    finished = 0
    for _ in range(times):
        process = tiny.python(WORK)
        assert process.stdout.readline().strip() == "ready"
        time.sleep(chance.uniform(0.0, within))
        process.kill()
        finished += process.communicate()[0].count("done")
        assert_whole(tiny)
    return finished


def assert_caught_up(tiny):
    results = tiny.run()
    assert not any(result.error for result in results.values())
    assert_whole(tiny)
    assert tiny.scores() == tiny.expected()
    with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="test", read_only=True):
        assert verify(con, moves=alias_moves(tiny.registry)) is None
    live = tiny.published("SELECT scoring_id FROM ledger.partitions WHERE is_live ORDER BY 1")
    assert live == tiny.warehouse("SELECT scoring_id FROM ledger.live ORDER BY 1")


@pytest.mark.slice
@pytest.mark.lake
def test_a_killed_run_leaves_every_partition_whole(scored):
    kill_at_random(scored, times=3, seed=3)
    assert_caught_up(scored)


@pytest.mark.soak
@pytest.mark.lake
def test_many_killed_runs_leave_every_partition_whole(scored):
    times = 30 if isinstance(scored.project.warehouse, Lake) else 100
    assert kill_at_random(scored, times=times, seed=25) > 0, "no run came to its end: the kills were too early"
    assert_caught_up(scored)
