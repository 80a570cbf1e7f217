"""A partition scored by tasks on a real Ray cluster of two nodes is the partition that one process scores."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from pip_dagster.errors import ClusterError, PipelineError

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slice, pytest.mark.lake("never")]

KEYS = ("2024-03-01", "2024-03-02")
COLUMNS = (
    "partition_key, status, reason, role, model_digest, feature_digest, source_digests, code_digest, engine, rows_in, "
    "rows_scored, rows_quarantined, findings, min_score, max_score, score_digest"
)


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of two CPUs each, on this machine."""
    from ray.cluster_utils import Cluster

    found = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 * 2**20},
    )
    found.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    yield found
    found.shutdown()


def on_ray(cluster, **more):
    return {"engine": {"name": "ray", "address": cluster.address, "tasks": 3, "cpus": 1} | more}


def recorded(tiny):
    rows = tiny.warehouse(f"SELECT {COLUMNS} FROM ledger.scorings WHERE status = 'scored' ORDER BY ALL")
    assert rows
    return rows


def test_the_ledger_is_the_same_as_after_one_process(tiny, cluster):
    tiny.run(*KEYS)
    alone, scores = recorded(tiny), tiny.scores()
    tiny.begin_again()
    tiny.declare(scoring=on_ray(cluster))
    results = tiny.run(*KEYS)
    assert [result.error for result in results.values()] == [None, None]
    assert recorded(tiny) == alone
    assert tiny.scores() == scores == tiny.expected("day < '2024-03-03'")
    assert tiny.warehouse("SELECT DISTINCT cluster, tasks FROM ledger.scorings") == [(f"ray {ray.__version__}", 3)]
    assert not list((tiny.root / "data" / "exchange").iterdir())
