"""Twenty runs at once into one warehouse, a file or a lake: each gets its turn, and its log shows what it waited."""

import json
import os
import subprocess
import sys
from datetime import date, timedelta

import pytest

RUNS, ROWS = 20, 2000
# Forked from one process that has imported everything: twenty times importing would be most of it.
AT_ONCE = """
import json, logging, multiprocessing, re, sys, time
import yaml, xgboost
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec
from pip_dagster.flow.materialize import materialize
from pip_dagster.ledger.record import RunInfo
from pip_dagster.orchestration.partitions import partitions_definition, partitions_of

project = Project.find()
folder = project.root / "acme" / "defs" / "orders"
spec = PipelineSpec.model_validate(yaml.safe_load((folder / "defs.yaml").read_text())["attributes"])
definition = partitions_definition(spec.partitions)

def run(key, start, queue):
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("pip_dagster").addHandler(handler)
    logging.getLogger("pip_dagster").setLevel(logging.INFO)
    start.wait()
    began = time.monotonic()
    pipeline = Pipeline.load(spec, folder, project)
    results = list(materialize(pipeline, partitions_of(definition, [key]), RunInfo(key, "a test")))
    errors = [result.error for result in results if result.error]
    waits = [float(found[1]) for line in lines if (found := re.match(r"waited ([\\d.]+) s for the warehouse", line))]
    queue.put({"key": key, "errors": errors, "seconds": time.monotonic() - began, "waits": waits})

fork = multiprocessing.get_context("fork")
keys, queue = sys.argv[1:], fork.Queue()
start = fork.Barrier(len(keys))
for key in keys:
    fork.Process(target=run, args=(key, start, queue), daemon=True).start()
print(json.dumps([queue.get(timeout=900) for _ in keys]))
"""


@pytest.mark.soak
@pytest.mark.lake("always")
def test_twenty_runs_at_once_all_get_their_turn_and_say_what_they_waited(tiny):
    start = date(2024, 1, 1)
    tiny.source(
        f"CREATE OR REPLACE TABLE raw.orders AS SELECT o.* REPLACE (order_id + 200 * k + 1000000 * d AS order_id, "
        f"DATE '{start}' + d::INT AS day) FROM raw.orders o, range({RUNS}) t(d), range({ROWS // 200}) u(k)"
    )
    tiny.declare(partitions={"start": str(start), "end": str(start + timedelta(days=RUNS))})
    days = [str(start + timedelta(days=day)) for day in range(RUNS)]
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE, *days],
        cwd=tiny.root,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert [each["errors"] for each in said] == [[]] * RUNS
    rows = "SELECT partition_key, count(*), count(DISTINCT scoring_id) FROM orders.predictions GROUP BY 1 ORDER BY 1"
    assert tiny.warehouse(rows) == [(day, ROWS, 1) for day in days]
    assert tiny.scores() == tiny.expected()
    waits, seconds = sorted(sum(each["waits"]) for each in said), sorted(each["seconds"] for each in said)
    print(f"median wait {waits[RUNS // 2]:.1f} s, longest {waits[-1]:.1f} s; last run ended after {seconds[-1]:.1f} s")
    assert waits[-1] <= seconds[-1] < 300
