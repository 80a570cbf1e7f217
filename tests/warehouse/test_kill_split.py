"""kill -9 while a pipeline is split: a partition is the champion's or parted, and the next run catches up."""

import random
import time

import pytest

from pip_dagster.ledger.verify import verify
from pip_dagster.warehouse.connect import open_warehouse, workspace

WORK = """
import duckdb, xgboost, scipy.special
from datetime import datetime, timedelta, timezone
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.flow.materialize import materialize
from pip_dagster.declaration.partition import Partition
from pip_dagster.ledger.record import RunInfo
from pip_dagster.declaration.project import Project

pipeline = find_pipeline(Project.find(), "orders")
starts = [datetime(2024, 3, day, tzinfo=timezone.utc) for day in (1, 2)]
partitions = [Partition(f"{start:%Y-%m-%d}", start, start + timedelta(days=1)) for start in starts]
print("ready", flush=True)
while True:
    with duckdb.connect("sources.duckdb") as con:
        con.execute("UPDATE raw.orders SET quantity = 1 + (quantity + 1) % 8")
    list(materialize(pipeline, partitions, RunInfo("killed", "a test")))
    print("done", flush=True)
"""
# Of each partition: rows, units, the arms' rows, and whether a row is in an arm that its bucket is not of.
WHOLE = """
  SELECT partition_key, count(*), count(DISTINCT order_id), count(*) FILTER (arm = 'challenger'),
         count(*) FILTER ((arm = 'challenger') <> (model_version = 2)),
         count(*) FILTER (arm = 'challenger' AND
           ('0x' || substr(md5('6:spring' || length(order_id::VARCHAR) || ':' || order_id), 1, 15))::BIGINT % 10000
           >= 4000)
  FROM orders.predictions GROUP BY 1 ORDER BY 1
"""


def assert_whole(tiny, arms):
    for read in (tiny.warehouse, tiny.published):
        for key, rows, units, of_arm, misplaced, astray in read(WHOLE):
            assert (rows, units, misplaced, astray) == (50, 50, 0, 0), key
            assert of_arm in (0, arms[key]), "wholly the champion's, or parted"
    tiles = "SELECT change_id, sum(high - low), min(low), max(high) FROM ledger.arms GROUP BY 1"
    assert {row[1:] for row in tiny.warehouse(tiles)} == {(10_000, 0, 10_000)}
    with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="test", read_only=True):
        assert verify(con) is None


def kill_at_random(tiny, times, seed):
    tiny.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
    tiny.declare(scoring={"split": {"arms": {"challenger": "40%"}, "salt": "spring"}})
    days = ("2024-03-01", "2024-03-02")
    tiny.run(*days)
    arms = {row[0]: row[3] for row in tiny.published(WHOLE)}
    assert list(arms) == list(days) and all(arms.values())
    chance = random.Random(seed)
    for _ in range(times):
        process = tiny.python(WORK)
        assert process.stdout.readline().strip() == "ready"
        time.sleep(chance.uniform(0.0, 2.0))
        process.kill()
        process.communicate()
        assert_whole(tiny, arms)
    assert all(result.live_arms for result in tiny.run(*days).values())
    assert {row[0]: row[3] for row in tiny.published(WHOLE)} == arms
    assert_whole(tiny, arms)


@pytest.mark.slice
def test_a_killed_run_leaves_every_partition_whole(tiny):
    kill_at_random(tiny, times=2, seed=3)


@pytest.mark.soak
def test_many_killed_runs_leave_every_partition_whole(tiny):
    kill_at_random(tiny, times=25, seed=25)
