"""Real Dagster runs on instances of their own: what the UI will show of them."""

import os
import subprocess
import sys

import dagster as dg
import duckdb
import pytest

from pip_dagster.orchestration.definitions import build_definitions

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
FEATURES, PREDICTIONS = dg.AssetKey(["orders", "features"]), dg.AssetKey(["orders", "predictions"])
MODEL, SOURCE = dg.AssetKey(["orders", "model"]), dg.AssetKey(["orders", "sources", "orders"])

pytestmark = pytest.mark.slow


@pytest.fixture
def instance():
    with dg.instance_for_test() as found:
        yield found


def run(tiny, instance, first=FIRST, last=FOURTH, selection=(FEATURES, PREDICTIONS), **tags):
    """One run over a range, as a backfill of the UI launches it."""
    definitions = build_definitions(tiny.pipeline())
    bounds = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance, asset_selection=list(selection), tags=bounds | tags, raise_on_error=False
    )


def materializations(instance, key):
    """Partition → metadata of its newest materialization."""
    records = instance.fetch_materializations(key, limit=1000).records
    return {
        record.partition_key: {name: each.value for name, each in record.asset_materialization.metadata.items()}
        for record in reversed(records)
    }


def failure_of(result):
    [event] = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    return event.step_failure_data


def test_a_range_in_one_run_has_an_event_a_partition_with_its_figures(tiny, instance):
    result = run(tiny, instance)
    assert result.success
    predictions, features = (materializations(instance, key) for key in (PREDICTIONS, FEATURES))
    assert list(predictions) == list(features) == list(DAYS)
    version = tiny.registry.get("returns", 1)
    for day, found in predictions.items():
        expected = tiny.expected(f"day = '{day}'")
        assert found["mean score"] == round(sum(expected.values()) / 50, 4)
        assert found["lowest score"] == pytest.approx(min(expected.values()), rel=1e-3, abs=5e-5)
        assert (found["rows"], found["rows quarantined"], found["model version"]) == (50, 0, 1)
        assert found["model"] == "returns v1" and version.digest in found["digests"]
        assert found["scoring time (s)"] > 0 and found["rows per second"] > 0
        assert not {"unchanged", "note"} & found.keys()
        revision = features[day]["digests"].splitlines()[0].split("`")[1]
        assert f"feature revision: `{revision}`" in found["digests"]
        assert [*found][:4] == ["rows", "mean score", "lowest score", "highest score"], "figures first"
    schema = [each for each in predictions.values() if "dagster/column_schema" in each]
    assert len(schema) == 1, "the schema once a run"
    lineage = schema[0]["dagster/column_lineage"].deps_by_column["score"]
    assert {dep.column_name for dep in lineage} == {"amount", "quantity", "gift", "shop"}
    run_ids = tiny.warehouse("SELECT DISTINCT run_id FROM ledger.scorings")
    assert run_ids == [(result.run_id,)]


def test_the_challengers_alone_can_be_materialized(tiny, instance):
    tiny.registry.set_alias("returns", "challenger", 2, by="ada", why="a test")
    tiny.declare(scoring={"challengers": ["challenger"]})
    challengers = dg.AssetKey(["orders", "challengers"])
    assert run(tiny, instance, FIRST, SECOND, selection=[FEATURES]).success
    assert run(tiny, instance, FIRST, SECOND, selection=[challengers]).success
    assert list(materializations(instance, challengers)) == [FIRST, SECOND]
    assert not materializations(instance, PREDICTIONS)


@pytest.mark.slice
def test_why_a_sensor_asked_is_in_the_log_the_metadata_and_the_ledger(tiny, instance):
    why = {"pip_dagster/reason": "source changed: orders 2024-03-02 (+1 row)"}
    assert run(tiny, instance, FIRST, FIRST, **why).success, "a person's own tag"
    result = run(tiny, instance, SECOND, SECOND, **why, **{"dagster/sensor_name": "orders_source_changes"})
    reason = why["pip_dagster/reason"]
    logged = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert f"orders: requested: {reason}" in logged
    assert "orders: 1 of 1 partition built" in logged
    for key in (FEATURES, PREDICTIONS):
        made = materializations(instance, key)
        assert made[SECOND]["why"] == reason and "why" not in made[FIRST]
    assert tiny.warehouse("SELECT partition_key, why FROM ledger.live_changes ORDER BY ALL") == [
        (FIRST, "scored"),
        (SECOND, reason),
    ]
    again = run(tiny, instance, SECOND, SECOND)
    assert "orders: 1 of 1 partition built; the scores of 1 are unchanged, from the same inputs" in [
        entry.user_message for entry in instance.all_logs(again.run_id)
    ]


def test_the_model_is_observed_by_the_run_that_used_it(tiny, instance):
    run(tiny, instance, FIRST, FIRST)
    [record] = instance.fetch_observations(MODEL, limit=10).records
    assert record.asset_observation.metadata["model"].value == "returns v1"
    assert record.asset_observation.tags["dagster/data_version"] == tiny.registry.get("returns", 1).manifest_digest


def test_an_empty_partition_is_materialized_and_says_so(tiny, instance):
    assert run(tiny, instance, "2024-03-10", "2024-03-10").success
    found = materializations(instance, PREDICTIONS)["2024-03-10"]
    assert found["rows"] == 0 and found["note"].startswith("empty")


def test_bad_dates_fail_the_run_and_leave_the_good_ones_materialized(tiny, instance):
    tiny.source(
        f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{SECOND}'",
        f"UPDATE raw.orders SET order_id = 150 WHERE day = '{FOURTH}'",
    )
    result = run(tiny, instance)
    assert not result.success
    assert list(materializations(instance, PREDICTIONS)) == [FIRST, THIRD]
    assert list(materializations(instance, FEATURES)) == [FIRST, SECOND, THIRD], "the features of the second are whole"
    failure = failure_of(result)
    text = failure.user_failure_data.description
    for words in ("2 of 4 partitions failed", f"partition {SECOND}: ", "amount in 50 rows", f"partition {FOURTH}: "):
        assert words in text
    listed = failure.user_failure_data.metadata["failed_partitions"].value
    assert set(listed) == {SECOND, FOURTH}
    assert instance.get_run_by_id(result.run_id).status == dg.DagsterRunStatus.FAILURE
    assert instance.get_materialized_partitions(PREDICTIONS) == {FIRST, THIRD}
    assert tiny.scores() == tiny.expected(f"day IN ('{FIRST}', '{THIRD}')")


def test_a_failed_declaration_fails_the_run_with_its_message_and_no_retry(tiny, instance):
    tiny.declare("SELECT order_id, day FROM raw.orders WHERE day >= $start_date AND day < $end_date")
    failure = failure_of(run(tiny, instance))
    assert "'amount' is missing" in failure.user_failure_data.description
    assert not materializations(instance, FEATURES)


def test_a_run_that_fails_says_why_whatever_becomes_of_its_last_look_at_the_ledger(tiny, instance, monkeypatch):
    assert run(tiny, instance, FIRST, FIRST).success

    def broken(*_):
        raise duckdb.IOException("the ledger cannot be read")

    monkeypatch.setattr("pip_dagster.orchestration.metadata.latest_extractions", broken)
    tiny.declare("SELECT order_id, day FROM raw.orders WHERE day >= $start_date AND day < $end_date")
    failure = failure_of(run(tiny, instance, SECOND, SECOND))
    assert failure.user_failure_data and "'amount' is missing" in failure.user_failure_data.description


def test_predictions_alone_score_the_stored_features(tiny, instance):
    assert run(tiny, instance, selection=[FEATURES]).success
    assert not materializations(instance, PREDICTIONS)
    tiny.source("DELETE FROM raw.orders WHERE order_id <> 60")
    assert run(tiny, instance, selection=[PREDICTIONS]).success
    assert tiny.published("SELECT count(*) FROM orders.predictions") == [(200,)]
    assert len(instance.fetch_materializations(FEATURES, limit=100).records) == 4, "features are not made again"


@pytest.mark.slice
def test_a_rerun_says_that_it_reused(tiny, instance):
    run(tiny, instance, FIRST, FIRST)
    assert run(tiny, instance, FIRST, FIRST).success
    assert materializations(instance, PREDICTIONS)[FIRST]["unchanged"].startswith("yes")


@pytest.mark.parametrize(
    ("tags", "who"),
    [
        ({"dagster/schedule_name": "orders_schedule"}, "schedule orders_schedule"),
        ({"dagster/backfill": "abc"}, "backfill abc"),
        ({"user": "ada@example.com"}, "ada@example.com"),
    ],
)
def test_the_ledger_knows_who_asked(tiny, instance, tags, who):
    run(tiny, instance, FIRST, FIRST, **tags)
    assert tiny.warehouse("SELECT made_by FROM ledger.scorings") == [(who,)]


def test_observing_gives_data_versions(tiny, instance):
    definitions = build_definitions(tiny.pipeline())

    def observe():
        job = definitions.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, asset_selection=[SOURCE, MODEL]).success
        versions = {}
        for key in (SOURCE, MODEL):
            record = instance.fetch_observations(key, limit=1).records[0]
            versions[key] = record.asset_observation.tags["dagster/data_version"]
        rows = instance.fetch_observations(SOURCE, limit=1).records[0].asset_observation.metadata["dagster/row_count"]
        return versions, rows.value

    first, rows = observe()
    assert rows == 200
    assert first[MODEL] == tiny.registry.get("returns", 1).manifest_digest
    assert observe() == (first, 200), "nothing changed, nothing is new"
    tiny.source("UPDATE raw.orders SET quantity = 9 WHERE order_id = 1")
    tiny.registry.set_alias("returns", "champion", 2, by="ada", why="a test")
    second, _ = observe()
    assert second[SOURCE] != first[SOURCE] and second[MODEL] == tiny.registry.get("returns", 2).manifest_digest


def test_the_job_takes_one_partition(tiny, instance):
    job = build_definitions(tiny.pipeline()).resolve_job_def("orders_job")
    assert job.execute_in_process(instance=instance, partition_key=THIRD).success
    assert tiny.scores() == tiny.expected(f"day = '{THIRD}'")


@pytest.mark.slice
def test_dagster_asset_materialize_over_a_range(tiny, tmp_path):
    """The third party's own project, by Dagster's own command."""
    home = tmp_path / "home"
    home.mkdir()
    select = ("--select", "orders/features,orders/predictions", "--partition-range", f"{FIRST}...{THIRD}")
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "acme.definitions", *select],
        cwd=tiny.root,
        env=os.environ | {"DAGSTER_HOME": str(home), "PYTHONPATH": str(tiny.root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert tiny.scores() == tiny.expected(f"day <= '{THIRD}'")
