"""Dagster's events without what was erased: every event read back by its own storage, every byte scanned."""

import sqlite3
from pathlib import Path

import dagster as dg
import pytest
import yaml
from byte_scan import needles, scan

from pip_dagster.erasure.place import ErasureRequest
from pip_dagster.errors import ErasureError
from pip_dagster.orchestration.erased_events import DagsterPlace
from pip_dagster.warehouse.lock import waiting_at_most

DATES = dg.DailyPartitionsDefinition("2024-03-01", end_date="2024-03-04")
RANGE = {"dagster/asset_partition_range_start": "2024-03-01", "dagster/asset_partition_range_end": "2024-03-03"}
GONE, STAYS = "2024-03-02", "2024-03-03"
REQUEST = ErasureRequest(
    "e1", "erase", "asked", {"orders": "customer"}, {"orders": ["cust-leaves"]}, {"orders": [GONE]}
)
SECRET = 0.1234567891


@dg.multi_asset(
    specs=[dg.AssetSpec(["orders", "predictions"], partitions_def=DATES)],
    check_specs=[dg.AssetCheckSpec("expectations", asset=["orders", "predictions"])],
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def step(context: dg.AssetExecutionContext):
    for key in context.partition_keys:
        mean = SECRET if key == GONE else 0.5
        context.add_asset_metadata({"mean score": mean}, asset_key=["orders", "predictions"], partition_key=key)
    context.log.info(f"{GONE}: keys occur more than once, such as cust-leaves")
    context.log.info(f"{STAYS}: 5 rows")
    print("cust-leaves in the output")
    yield dg.MaterializeResult(asset_key=["orders", "predictions"])
    yield dg.AssetCheckResult(
        asset_key=["orders", "predictions"],
        check_name="expectations",
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{GONE}: cust-leaves is odd",
        metadata={"partition": GONE, "observed": SECRET},
    )


@pytest.fixture
def ran(tmp_path, monkeypatch):
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {"enabled": False}}))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        assert dg.materialize([step], instance=instance, tags=RANGE).success
        yield instance, tmp_path


def _found(home: Path):
    return scan(home, needles("cust-leaves", str(SECRET)))


def test_only_what_concerns_the_partition_is_redacted_and_every_event_can_be_read(ran):
    instance, home = ran
    (run,) = instance.get_runs()
    before = {each.message for each in instance.all_logs(run.run_id)}
    assert _found(home)
    place = DagsterPlace(instance)
    with pytest.raises(ErasureError, match="still have something"):
        place.verify(REQUEST)
    removed = place.remove(REQUEST)
    assert removed.rows_removed > 0 == removed.rows_after
    assert "every event" in place.verify(REQUEST)
    assert _found(home) == []
    assert place.remove(REQUEST).rows_removed == 0  # again, as after a kill

    after = instance.all_logs(run.run_id)
    assert any(f"{STAYS}: 5 rows" in each.user_message for each in after)
    assert before - {each.message for each in after}
    key = dg.AssetKey(["orders", "predictions"])
    assert set(instance.get_materialized_partitions(key)) == {"2024-03-01", GONE, STAYS}
    of = {each.partition_key: each.asset_materialization for each in instance.fetch_materializations(key, 10).records}
    assert of[GONE].metadata["note"].value == "erased by e1" and set(of[GONE].metadata) == {"note"}
    assert of[STAYS].metadata["mean score"].value == 0.5 and of[GONE].tags
    (check,) = (
        each.get_dagster_event().event_specific_data
        for each in after
        if each.dagster_event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
    )
    assert not check.passed and check.description == "erased by e1" and check.metadata["partition"].value == GONE


def test_a_reader_that_never_ends_is_named_and_the_erasure_resumes(ran):
    instance, home = ran
    place = DagsterPlace(instance)
    index = home / "history" / "runs" / "index.db"
    reader = sqlite3.connect(index, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM event_logs").fetchone()
    with waiting_at_most(0.5), pytest.raises(ErasureError, match="index.db is in use"):
        place.remove(REQUEST)
    reader.close()
    place.remove(REQUEST)
    assert _found(home) == []
