"""A partition scored by tasks on a real Ray cluster of two nodes is the partition that one process scores."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from pip_dagster.errors import ClusterError

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.soak, pytest.mark.lake("never")]

FIRST, SECOND = "2024-03-01", "2024-03-02"
SCORINGS = (
    "SELECT partition_key, status, reason, role, model_digest, feature_digest, source_digests, code_digest, engine, "
    "device, rows_in, rows_scored, rows_quarantined, findings, min_score, max_score, score_digest "
    "FROM ledger.scorings WHERE status = 'scored' ORDER BY ALL"
)


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of two CPUs each, on this machine."""
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    head = size | {"include_dashboard": False, "ray_client_server_port": port}
    found = started(lambda: Cluster(initialize_head=True, head_node_args=head))
    started(lambda: found.add_node(**size))
    found.from_outside = f"ray://127.0.0.1:{port}"
    yield found
    found.shutdown()


def started(start):
    """Ray gives a node 30 s to start, which is too little on a busy machine."""
    for _ in range(4):
        try:
            return start()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    return start()


def on_ray(tiny, cluster, **more):
    engine = {"name": "ray", "address": cluster.address, "tasks": 3, "cpus": 1} | more
    return tiny.declare(scoring={"engine": engine})


def working(task: str) -> list[int]:
    """The processes that do such a task now; Ray gives them its name."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if process.read_bytes().startswith(f"ray::{task}".encode()):
                found.append(int(process.parent.name))
        except OSError:
            continue
    return found


class Killer(threading.Thread):
    """Kills the first process that does each of these tasks."""

    def __init__(self, *tasks: str) -> None:
        super().__init__(daemon=True)
        self.waiting, self.killed, self.ended = list(tasks), 0, False

    def run(self):
        while self.waiting and not self.ended:
            for task in list(self.waiting):
                for pid in working(task)[:1]:
                    os.kill(pid, signal.SIGKILL)
                    self.waiting.remove(task)
                    self.killed += 1
            time.sleep(0.01)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_workers_that_are_killed_are_replaced_and_the_ledger_is_that_of_one_process(tiny, cluster):
    tiny.run(FIRST)
    alone, scores = tiny.warehouse(SCORINGS), tiny.scores()
    tiny.begin_again()
    killer = Killer("extract_share", "score_share")
    killer.start()
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    results = on_ray(tiny, cluster, tasks=4).run(FIRST)
    killer.ended = True
    assert killer.killed == 2
    assert results[FIRST].error is None
    assert tiny.warehouse(SCORINGS) == alone
    assert tiny.scores() == scores == tiny.expected(f"day = '{FIRST}'")
    ((software, tasks, nodes),) = tiny.warehouse("SELECT cluster, tasks, nodes FROM ledger.scorings")
    assert (software, tasks) == (f"ray {ray.__version__}", 4)
    assert nodes in (1, 2)
    assert not list((tiny.root / "data" / "exchange").iterdir())
    assert not ray.is_initialized()
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_from_a_machine_that_is_no_node_and_from_stored_features(tiny, cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster.from_outside)
    tiny.declare(scoring={"engine": "ray"})
    assert tiny.run(FIRST, predictions=False)[FIRST].error is None
    assert tiny.run(FIRST, features=False)[FIRST].error is None
    assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")
    assert tiny.warehouse("SELECT tasks <= 2, threads FROM ledger.scorings")[0][0]


def test_a_run_that_is_killed_leaves_what_was_stored_and_the_next_one_does_its_work(tiny, cluster):
    on_ray(tiny, cluster)
    tiny.run(FIRST)
    before = tiny.warehouse("FROM ledger.scorings")
    run = tiny.python(
        """
        import yaml
        from pathlib import Path
        from pip_dagster.declaration.pipeline import Pipeline
        from pip_dagster.declaration.project import Project
        from pip_dagster.declaration.spec import PipelineSpec
        from pip_dagster.declaration.grid import closed_partitions
        from pip_dagster.flow.materialize import materialize
        from pip_dagster.ledger.record import RunInfo
        from datetime import UTC, datetime

        folder = Path("acme/defs/orders")
        spec = PipelineSpec.model_validate(yaml.safe_load((folder / "defs.yaml").read_text())["attributes"])
        pipeline = Pipeline.load(spec, folder, Project.at(Path.cwd()))
        second = closed_partitions(spec.partitions, datetime.now(UTC))[1]
        print(list(materialize(pipeline, [second], RunInfo("run-2", "a test"))))
        """
    )
    until(lambda: working("score_share") or run.poll() is not None, 120)
    assert run.poll() is None, run.communicate()
    run.kill()
    run.wait()
    until(lambda: not working("score_share") and not working("extract_share"))
    assert len(list((tiny.root / "data" / "exchange").iterdir())) == 1
    assert tiny.warehouse("FROM ledger.scorings") == before
    assert tiny.run(SECOND)[SECOND].error is None
    assert tiny.scores() == tiny.expected(f"day <= '{SECOND}'")
    assert not list((tiny.root / "data" / "exchange").iterdir())


def test_what_the_nodes_lack_is_refused_before_anything_is_read(tiny, cluster, monkeypatch):
    from pip_dagster.flow.distributed import cluster as connection

    on_ray(tiny, cluster, cpus=3)
    with pytest.raises(ClusterError, match=r"needs 3 CPUs .* no node of the Ray cluster has more than 2.*Nothing was"):
        tiny.run(FIRST)
    there = connection.versions().replace('"duckdb":"', '"duckdb":"9.')
    monkeypatch.setattr(connection, "versions", lambda: there)
    on_ray(tiny, cluster)
    with pytest.raises(ClusterError, match=r"On the Ray node .*: it has duckdb .*, not 9\..*Nothing was read"):
        tiny.run(FIRST)
