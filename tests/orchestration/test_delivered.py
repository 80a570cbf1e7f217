"""The asset `delivered` in real Dagster runs: it follows the scoring; a target that is down fails its check alone."""

import json

import dagster as dg
import pytest

from pip_dagster.delivery import outbox
from pip_dagster.orchestration.definitions import build_definitions

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
DELIVERED, PREDICTIONS = dg.AssetKey(["orders", "delivered"]), dg.AssetKey(["orders", "predictions"])

pytestmark = pytest.mark.slow

BROKEN = """
from pathlib import Path
def take(change, reader):
    if Path(__file__).with_name("down").exists():
        raise ConnectionError("no route to host")
"""


@pytest.fixture
def instance():
    with dg.instance_for_test() as found:
        yield found


def run(tiny, instance, first=FIRST, last=FOURTH, selection=None):
    """A run of the pipeline's job, as its schedule launches it, or of some assets with their checks."""
    definitions = build_definitions(tiny.pipeline())
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    name = "orders_job"
    job = definitions.resolve_implicit_global_asset_job_def() if selection else definitions.resolve_job_def(name)
    return job.execute_in_process(instance=instance, asset_selection=selection, tags=tags, raise_on_error=False)


def materialized(instance, key=DELIVERED):
    return sorted(record.partition_key for record in instance.fetch_materializations(key, limit=100).records)


def checks(result):
    return {each.check_name: each for each in result.get_asset_check_evaluations() if each.asset_key == DELIVERED}


def manifest(tiny, key):
    return json.loads((tiny.root / "out" / key / "latest.json").read_text())


@pytest.mark.slice
def test_a_run_of_the_job_delivers_what_it_scored(tiny, instance):
    tiny.declare(deliver={"lake": {"parquet": "out"}})
    result = run(tiny, instance)
    assert result.success
    assert materialized(instance) == [*DAYS]
    assert checks(result)["lake"].passed, checks(result)["lake"].description
    assert "4 partitions read back" in checks(result)["lake"].description
    record = instance.fetch_materializations(DELIVERED, limit=1).records[0].asset_materialization.metadata
    assert record["rows at lake"].value == 50
    assert record["place of lake"].value.startswith(str(tiny.root))
    runs = tiny.warehouse("SELECT DISTINCT run_id FROM ledger.deliveries")
    assert runs == [(result.run_id,)]


@pytest.mark.slice
def test_what_a_run_could_score_is_delivered_although_a_partition_failed(tiny, instance):
    tiny.source("UPDATE raw.orders SET order_id = 0 WHERE day = DATE '2024-03-02'")  # the key is not unique
    tiny.declare(deliver={"lake": {"parquet": "out"}})
    assert not run(tiny, instance).success
    assert materialized(instance) == [FIRST, THIRD, FOURTH]
    assert manifest(tiny, THIRD)["rows"] == 50


@pytest.mark.slice
def test_a_rollback_and_what_was_pending_are_delivered_by_the_next_run(tiny, instance):
    tiny.declare(deliver={"lake": {"parquet": "out"}})
    assert run(tiny, instance, FIRST, SECOND).success
    tiny.run(FIRST, version=2)
    assert run(tiny, instance, THIRD, THIRD).success
    assert materialized(instance) == [FIRST, FIRST, SECOND, THIRD], "the first again, by the run of the third"
    [[live]] = tiny.warehouse(f"SELECT change_id FROM ledger.live WHERE partition_key = '{FIRST}'")
    assert manifest(tiny, FIRST)["change_id"] == live


@pytest.mark.soak
def test_a_target_that_is_down_fails_its_check_and_nothing_else(tiny, instance, monkeypatch):
    monkeypatch.setattr(outbox, "BACKOFF_SECONDS", 0.01)
    (tiny.root / "flaky_target.py").write_text(BROKEN)
    (tiny.root / "down").touch()
    tiny.declare(deliver={"lake": {"parquet": "out"}, "own": {"python": "flaky_target:take"}})
    result = run(tiny, instance, FIRST, SECOND)
    assert result.success, "the scores are there"
    found = checks(result)
    assert (found["lake"].passed, found["own"].passed) == (True, False)
    assert "flaky_target:take raised" in found["own"].description
    assert found["own"].severity == dg.AssetCheckSeverity.ERROR
    assert manifest(tiny, SECOND)["rows"] == 50
    assert materialized(instance) == [], "a partition is delivered when all targets have it"
    (tiny.root / "down").unlink()
    result = run(tiny, instance, FIRST, SECOND, [DELIVERED])
    assert result.success
    assert all(each.passed for each in checks(result).values())
    assert materialized(instance) == [FIRST, SECOND]


def test_a_check_is_executed_alone(scored):
    """As *Execute* launches it: what was delivered is read back, and what is pending fails it."""
    scored.declare(deliver={"lake": {"parquet": "out"}})
    assert "4 partitions pending" in executed(scored).description
    scored.shell("deliver", "orders")
    found = executed(scored)
    assert found.passed
    assert "4 partitions read back" in found.description
    (scored.root / "out" / FIRST / "latest.json").unlink()
    found = executed(scored)
    assert not found.passed
    assert f"{FIRST}: the target has nothing of it" in found.description


def executed(tiny):
    repository = build_definitions(tiny.pipeline()).get_repository_def()
    wanted = {dg.AssetCheckKey(DELIVERED, "lake")}
    job = repository.get_job("__ASSET_JOB").get_subset(asset_selection=set(), asset_check_selection=wanted)
    result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), raise_on_error=False)
    assert result.success
    [found] = result.get_asset_check_evaluations()
    return found


def test_targets_of_every_kind_make_one_asset(tiny):
    places = {"a": {"parquet": "a"}, "b": {"delta": "b"}, "c": {"python": "c:d"}}
    servers = {"d": {"postgres": {"url_env": "D", "table": "e.f"}}, "g": {"webhook": {"url_env": "H"}}}
    tiny.declare(deliver=places | servers)
    graph = build_definitions(tiny.pipeline()).resolve_asset_graph()
    assert {each.name for each in graph.get_check_keys_for_assets({DELIVERED})} == {*places, *servers}


def test_a_pipeline_without_targets_has_no_such_asset(tiny):
    keys = build_definitions(tiny.pipeline()).resolve_asset_graph().get_all_asset_keys()
    assert DELIVERED not in keys
