"""*Execute* on the checks of features and predictions: a run of checks, without assets and without a partition."""

import dagster as dg
import pytest
import yaml

from pip_dagster.orchestration.definitions import build_definitions
from pip_dagster.warehouse.connect import open_warehouse, workspace

FIRST, SECOND = "2024-03-01", "2024-03-02"
FEATURES, PREDICTIONS, MEANS = (
    dg.AssetCheckKey(dg.AssetKey(["orders", asset]), name)
    for asset, name in (("features", "small"), ("predictions", "likely"), ("predictions", "usual"))
)
SMALL = {
    "name": "small",
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "quantity", "max_value": 50},
}
SCORES = {
    "name": "likely",
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "score", "max_value": 1},
}
MEAN = {
    "name": "usual",
    "type": "expect_column_mean_to_be_between",
    "kwargs": {"column": "score", "min_value": {"$PARAMETER": "score_mean - 1"}},
}


@pytest.fixture
def judged(tiny):
    return expect(tiny, SMALL, SCORES, MEAN)


def expect(tiny, features, *predictions):
    suite = {"features": [{**features, "severity": "warning"}], "predictions": [*predictions]}
    (tiny.folder / "expectations.yaml").write_text(yaml.safe_dump(suite))
    return tiny.declare(quality="expectations.yaml")


def execute(tiny, *checks, definitions=None, tags=None):
    """As the web server launches it: the implicit job, its checks and no asset."""
    found = definitions or build_definitions(tiny.pipeline())
    job = (
        found.get_repository_def()
        .get_job("__ASSET_JOB")
        .get_subset(asset_selection=set(), asset_check_selection=set(checks))
    )
    return job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), raise_on_error=False, tags=tags)


def results(run):
    return {e.asset_check_key: e for e in run.get_asset_check_evaluations()}


def failure(run):
    [event] = [each for each in run.all_events if each.event_type_value == "STEP_FAILURE"]
    return event.step_failure_data.user_failure_data.description


@pytest.mark.parametrize("checks", [(FEATURES,), (PREDICTIONS,), (FEATURES, PREDICTIONS, MEANS)])
def test_the_newest_stored_partition_is_judged(judged, checks):
    judged.source(f"UPDATE raw.orders SET quantity = 99 WHERE day = '{SECOND}' AND order_id % 50 < 3")
    judged.run(FIRST, SECOND)
    run = execute(judged, *checks)
    found = results(run)
    assert run.success and found.keys() == {*checks}
    if FEATURES in checks:
        assert not found[FEATURES].passed and found[FEATURES].severity.value == "WARN"
        assert found[FEATURES].description == (f"{SECOND}, the newest that is stored: not met: 3 of 50 rows do not fit")
    if PREDICTIONS in checks:
        assert found[PREDICTIONS].passed and SECOND in found[PREDICTIONS].description
    assert not run.get_asset_materialization_events()


def test_the_expectations_are_those_that_are_declared_now(judged):
    judged.run(FIRST)
    assert all(each.passed for each in results(execute(judged, FEATURES, PREDICTIONS)).values())
    expect(
        judged,
        {**SMALL, "kwargs": {"column": "quantity", "max_value": 2}},
        {**SCORES, "kwargs": {"column": "score", "max_value": 0}},
    )
    assert not any(each.passed for each in results(execute(judged, FEATURES, PREDICTIONS)).values())


def test_features_that_were_blocked_are_the_newest(judged):
    judged.run(FIRST)
    few = {"name": "small", "type": "expect_table_row_count_to_be_between", "kwargs": {"max_value": 10}}
    suite = {"features": [few]}
    (judged.folder / "expectations.yaml").write_text(yaml.safe_dump(suite | {"predictions": [SCORES]}))
    assert "blocked" in judged.run(SECOND)[SECOND].error
    found = results(execute(judged, FEATURES, PREDICTIONS))
    assert not found[FEATURES].passed and SECOND in found[FEATURES].description
    assert found[PREDICTIONS].passed and FIRST in found[PREDICTIONS].description


@pytest.mark.parametrize("built", ["nothing", "features"])
def test_nothing_stored_is_a_warning_that_says_what_to_do(judged, built):
    if built == "features":
        judged.run(FIRST, predictions=False)
    run = execute(judged, FEATURES, PREDICTIONS)
    found = results(run)
    assert run.success
    missing = [key for key, each in found.items() if each.description.startswith("Nothing was judged")]
    assert missing == ([FEATURES, PREDICTIONS] if built == "nothing" else [PREDICTIONS])
    assert found[PREDICTIONS].severity.value == "WARN" and not found[PREDICTIONS].passed
    assert "orders/predictions is stored yet. Materialize it" in found[PREDICTIONS].description


def test_each_pipeline_judges_its_own(judged):
    judged.run(FIRST)
    one = build_definitions(judged.pipeline())
    other = build_definitions(judged.declare(quality="expectations.yaml", name="again").pipeline())
    again = dg.AssetCheckKey(dg.AssetKey(["again", "features"]), FEATURES.name)
    found = results(execute(judged, FEATURES, again, definitions=dg.Definitions.merge(one, other)))
    assert found[FEATURES].passed and FIRST in found[FEATURES].description
    assert "again/features is stored yet" in found[again].description


def test_a_warehouse_that_another_process_holds_fails_in_one_sentence(judged, monkeypatch):
    judged.run(FIRST)
    monkeypatch.setenv("PIP_DAGSTER_LOCK_DEADLINE", "0.2")
    with workspace(threads=1) as con, open_warehouse(con, judged.project.warehouse, purpose="a long run"):
        run = execute(judged, FEATURES)
    assert not run.success and "a long run" in failure(run)


def test_an_expectation_on_a_column_that_is_not_stored_fails_in_one_sentence(judged):
    judged.run(FIRST)
    expect(judged, SMALL, {**SCORES, "kwargs": {"column": "amount_eur", "max_value": 1}})
    run = execute(judged, PREDICTIONS)
    assert not run.success and "amount_eur" in failure(run)


def test_a_source_that_is_not_there_fails_in_one_sentence(judged):
    (judged.folder / "expectations.yaml").write_text(
        yaml.safe_dump(
            {"sources": {"orders": [{"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}}]}}
        )
    )
    (judged.root / "sources.duckdb").rename(judged.root / "gone.duckdb")
    key = dg.AssetKey(["orders", "sources", "orders"])
    run = execute(judged, dg.AssetCheckKey(key, "table_row_count_to_be_between"))
    assert not run.success and "sources.duckdb" in failure(run)
    job = build_definitions(judged.pipeline()).get_repository_def().get_job("__ASSET_JOB")
    for asset in (key, dg.AssetKey(["orders", "model"])):
        observed = job.get_subset(asset_selection={asset}).execute_in_process(
            instance=dg.DagsterInstance.ephemeral(), raise_on_error=False
        )
        assert observed.success == (asset != key)
        assert observed.success or "sources.duckdb" in failure(observed)


def test_a_run_of_checks_for_partitions_judges_these(judged):
    judged.source(f"UPDATE raw.orders SET quantity = 99 WHERE day = '{FIRST}' AND order_id % 50 < 3")
    judged.run(FIRST, SECOND)
    one = execute(judged, FEATURES, tags={"dagster/partition": FIRST})
    assert not results(one)[FEATURES].passed and results(one)[FEATURES].description.startswith(f"{FIRST}: not met")
    tags = {"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": SECOND}
    both = execute(judged, FEATURES, tags=tags).get_asset_check_evaluations()
    assert {each.partition: each.passed for each in both} == {FIRST: False, None: False}


def test_a_run_of_assets_without_a_partition_says_what_to_do(judged):
    job = build_definitions(judged.pipeline()).resolve_job_def("orders_job")
    run = job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), raise_on_error=False)
    assert not run.success and "the run names no partition. Launch it for a partition" in failure(run)


def test_the_check_of_a_split_recalls_how_the_newest_partition_was_split(tiny):
    tiny.registry.set_alias("returns", "challenger", 2, by="ada", why="a test")
    tiny.declare(scoring={"split": {"arms": {"challenger": "40%"}, "salt": "spring"}})
    check = dg.AssetCheckKey(dg.AssetKey(["orders", "predictions"]), "split")
    assert "is stored yet" in results(execute(tiny, check))[check].description
    tiny.run(FIRST, SECOND)
    found = results(execute(tiny, check))[check]
    assert found.passed and found.description.startswith(f"{SECOND}, the newest that is stored")
    assert found.metadata["evaluated"].value > 1
