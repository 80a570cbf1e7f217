"""A partition scored by one process and by tasks on a Ray cluster of two nodes on this machine.

`python -m benchmarks.distributed [SIZE [TASKS…]]` prints CPU seconds: of one process; of the run and of its tasks; of a job and of
a task by themselves. From these docs/distributed.md computes from which size on which cluster a cluster pays. Takes minutes.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import data
from pip_dagster.declaration.pipeline import Pipeline

COUNTED = (
    "SELECT s.score_digest, s.feature_digest, s.rows_scored, s.cpu_seconds, e.cpu_seconds, s.tasks, s.nodes "
    "FROM ledger.scorings s JOIN ledger.extractions e ON e.partition_key = s.partition_key WHERE s.status = 'scored'"
)


@contextmanager
def cluster(cpus: int = 1) -> Iterator[str]:
    """Two nodes of so many CPUs on this machine; its address."""
    from ray.cluster_utils import Cluster

    size: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": 200 * 2**20}
    found = Cluster(initialize_head=True, head_node_args=size | {"include_dashboard": False})
    found.add_node(**size)
    try:
        yield str(found.address)
    finally:
        found.shutdown()


def scored(pipeline: Pipeline) -> dict[str, Any]:
    """One run of this pipeline in a process of its own: what it took, and what the ledger counted."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: dict[str, Any] = pool.apply(_scored, (pipeline,))
    return found


def _scored(pipeline: Pipeline) -> dict[str, Any]:
    from pip_dagster.declaration.grid import closed_partitions
    from pip_dagster.flow.materialize import materialize
    from pip_dagster.ledger.record import RunInfo
    from pip_dagster.warehouse.access import reading
    from pip_dagster.warehouse.connect import workspace

    first = closed_partitions(pipeline.spec.partitions, datetime.now(UTC))[0]
    began, cpu = time.monotonic(), time.process_time()
    (result,) = materialize(pipeline, [first], RunInfo("benchmark", "benchmark"))
    seconds, own = time.monotonic() - began, time.process_time() - cpu
    assert result.scoring and not result.error, result.error
    with workspace(threads=1) as con, reading(con, pipeline.project, purpose="benchmark"):
        row = con.execute(COUNTED).fetchone()
    assert row
    names = ("scores", "features", "rows", "scoring_cpu", "extraction_cpu", "tasks", "nodes")
    return dict(zip(names, row, strict=True)) | {"seconds": seconds, "own_cpu": own}


def measure(size: str, tasks: int) -> dict[str, Any]:
    """One process, and this many tasks, two at a time."""
    with tempfile.TemporaryDirectory(dir=data.FOLDER) as folder, cluster() as address:
        found = {}
        for name in ("local", "ray"):
            place = Path(folder) / name
            place.mkdir()
            engine = {"name": "ray", "address": address, "tasks": tasks, "cpus": 1, "exchange": f"{folder}/exchange"}
            found[name] = scored(data.scale_pipeline(size, place, engine=engine if name == "ray" else "local"))
        one, many = found["local"], found["ray"]
        assert (one["scores"], one["features"], one["rows"]) == (many["scores"], many["features"], many["rows"])
        return found


def _nothing(_: int) -> None:
    """A task."""


def overhead() -> dict[str, float]:
    """Seconds of a connection with its checks, of the first task on each node, and of a task that does nothing."""
    from pip_dagster.flow.distributed.cluster import connected

    with tempfile.TemporaryDirectory(dir=data.FOLDER) as folder, cluster() as address:
        engine = {"name": "ray", "address": address, "tasks": 2, "cpus": 1, "exchange": f"{folder}/exchange"}
        pipeline = data.scale_pipeline("1M", Path(folder), engine=engine)
        began = time.monotonic()
        with connected(pipeline, print) as found:
            assert found
            times = [began, time.monotonic()]
            for count in (2, 2, 500):
                found.map(_nothing, range(count))
                times.append(time.monotonic())
    job, first, warm, many = (after - before for before, after in zip(times, times[1:], strict=False))
    return {"job_s": job, "first_tasks_s": first, "two_tasks_s": warm, "task_ms": many / 500 * 1000}


if __name__ == "__main__":
    size = sys.argv[1] if len(sys.argv) > 1 else "1M"
    data.FOLDER.mkdir(parents=True, exist_ok=True)
    data.scale(size)
    data.registry()
    for tasks in map(int, sys.argv[2:] or ("2", "8")):
        print(json.dumps({"tasks": tasks, **measure(size, tasks)}), flush=True)
    print(json.dumps(overhead()), flush=True)
