"""The expectations as Dagster's asset checks: one each, with its sentence, what was observed, and the partition."""

import dagster as dg
import pytest
import yaml

SECOND, THIRD = "2024-03-02", "2024-03-03"
ENOUGH = {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 40}, "name": "enough"}
SMALL = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "quantity", "max_value": 50},
    "name": "small",
    "severity": "warning",
}


@pytest.fixture
def definitions(tiny):
    from pip_dagster.orchestration.definitions import build_definitions

    suite = {
        "sources": {"orders": [ENOUGH]},
        "features": [SMALL],
        "predictions": [{**SMALL, "kwargs": {"column": "score", "max_value": 1}}],
    }
    (tiny.folder / "expectations.yaml").write_text(yaml.safe_dump(suite))
    tiny.declare(quality="expectations.yaml")
    tiny.source(
        f"DELETE FROM raw.orders WHERE day = '{SECOND}' AND order_id % 50 > 20",
        f"UPDATE raw.orders SET quantity = 99 WHERE day = '{THIRD}' AND order_id % 50 < 3",
    )
    return build_definitions(tiny.pipeline())


def run(definitions, first, last, instance=None):
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    job = definitions.resolve_job_def("orders_job")
    instance = instance or dg.DagsterInstance.ephemeral()
    return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def evaluations(result):
    """(asset, check) → its evaluations in the run, the last of which is the check's state."""
    found = {}
    for event in result.all_events:
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            each = event.asset_check_evaluation_data
            found.setdefault((each.asset_key.path[-1], each.check_name), []).append(each)
    return found


def materialize(definitions, first, last, instance):
    """As the UI launches it: the implicit job, with the checks of the assets."""
    keys = [dg.AssetKey(["orders", name]) for name in ("features", "predictions")]
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, asset_selection=keys, tags=tags, raise_on_error=False)


def statuses(instance, key):
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    return [record.status.value for record in history]


ORDERS, FEATURES, PREDICTIONS = ("orders", "enough"), ("features", "small"), ("predictions", "small")


@pytest.mark.slice
@pytest.mark.slow
def test_a_range_names_the_partitions_that_do_not_meet_an_expectation(definitions, tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        result = materialize(definitions, "2024-03-01", "2024-03-04", instance)
        assert statuses(instance, dg.AssetCheckKey(dg.AssetKey(["orders", "features"]), "small")) == [
            "FAILED",
            "FAILED",
        ]
    found = evaluations(result)
    assert not result.success and found.keys() == {ORDERS, FEATURES, PREDICTIONS}
    one, whole = found[ORDERS]
    assert (one.partition, one.passed, one.severity.value) == (SECOND, False, "ERROR")
    assert one.description == f"{SECOND}: not met: observed 21"
    assert whole.partition is None and not whole.passed
    assert whole.description == (
        f"2024-03-01…2024-03-04: not met in 1 of 4 partitions; newest: {SECOND}: not met: observed 21"
    )
    assert whole.metadata["expected"].value == "The number of rows is at least 40"
    assert whole.metadata["not met in"].value == SECOND
    one, whole = found[FEATURES]
    assert (one.partition, one.severity.value, whole.passed) == (THIRD, "WARN", False)
    (only,) = found[PREDICTIONS]
    assert only.passed and only.description == "2024-03-01…2024-03-04: met in 3 partitions"
    materialized = {
        e.partition for e in result.asset_materializations_for_node("orders") if e.asset_key.path[-1] == "predictions"
    }
    assert materialized == {"2024-03-01", THIRD, "2024-03-04"}


@pytest.mark.slice
@pytest.mark.slow
def test_a_partition_has_one_evaluation_a_check_with_examples(definitions, tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        found = evaluations(materialize(definitions, THIRD, THIRD, instance))
        key = dg.AssetCheckKey(dg.AssetKey(["orders", "features"]), "small")
        assert statuses(instance, key) == ["FAILED"], "no row beside it that Dagster would show as skipped"
    (warned,) = found[FEATURES]
    assert (warned.passed, warned.severity.value) == (False, "WARN")
    assert warned.description == f"{THIRD}: not met: 3 of 50 rows do not fit"
    assert warned.metadata["expected"].value == "Every quantity is at most 50"
    rows = [record.data for record in warned.metadata["examples"].records]
    assert rows == 3 * [{"partition": THIRD, "quantity": "99"}], "and no key"
    (source,) = found[ORDERS]
    assert source.passed and source.description == f"{THIRD}: met: observed 50"


@pytest.mark.slow
def test_a_run_of_the_job_reports_the_checks_without_planning_them(definitions):
    result = run(definitions, "2024-03-01", "2024-03-02")
    assert evaluations(result).keys() == {ORDERS, FEATURES, PREDICTIONS}
    assert not [each for each in result.all_events if each.event_type_value == "ASSET_CHECK_EVALUATION_PLANNED"]


def test_a_check_says_what_it_does_to_a_partition(definitions):
    specs = {
        (key.asset_key.path[-1], key.name): definitions.resolve_asset_graph().get_check_spec(key)
        for key in definitions.resolve_asset_graph().asset_check_keys
    }
    assert {key: spec.blocking for key, spec in specs.items()} == {ORDERS: True, FEATURES: False, PREDICTIONS: False}
    assert (
        "Expected: The number of rows is at least 40.\n\n**critical**: blocks the partition"
        in specs[ORDERS].description
    )
    assert "**warning**: recorded. The partition is scored." in specs[FEATURES].description


def test_each_expectation_has_a_name_that_dagster_takes(tiny):
    from pip_dagster.orchestration.expectation_checks import blocks, by_key

    source = tiny.pipeline().spec.sources["orders"].model_dump(exclude_unset=True, mode="json")
    unnamed = [{key: value for key, value in each.items() if key != "name"} for each in (ENOUGH, SMALL)]
    rows = {**unnamed[1], "severity": "critical"}
    taken = {**SMALL, "name": "split", "kwargs": {"column": "score", "max_value": 1}, "severity": "critical"}
    suite = {"sources": {"orders": unnamed}, "features": [rows, {**rows, "name": "quantity_values_to_be_between"}]}
    (tiny.folder / "expectations.yaml").write_text(yaml.safe_dump(suite | {"predictions": [taken]}))
    tiny.declare(quality="expectations.yaml", sources={"orders": source | {"asset_key": "raw/orders"}})
    found = {"/".join([*key.asset_key.path, key.name]): blocks(each) for key, each in by_key(tiny.pipeline()).items()}
    assert found == {
        "raw/orders/orders_table_row_count_to_be_between": True,
        "raw/orders/orders_quantity_values_to_be_between": False,
        "orders/features/quantity_values_to_be_between": False,
        "orders/features/quantity_values_to_be_between_2": False,
        "orders/predictions/split_2": True,
    }


@pytest.mark.slow
def test_the_sources_can_be_judged_alone(tiny, definitions):
    tiny.declare(quality="expectations.yaml", partitions={"end": "2024-03-03"})
    from pip_dagster.orchestration.checks import source_checks
    from pip_dagster.orchestration.partitions import partitions_definition

    pipeline = tiny.pipeline()
    (check,) = source_checks(pipeline, partitions_definition(pipeline.spec.partitions))
    job = dg.define_asset_job("judge", selection=dg.AssetSelection.checks(check))
    alone = dg.Definitions(asset_checks=[check], jobs=[job]).resolve_job_def("judge")
    result = alone.execute_in_process(instance=dg.DagsterInstance.ephemeral())
    assert result.success, "a failed blocking check is a result, not an error of the run"
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert evaluation.description == f"{SECOND}, the newest partition: not met: observed 21"


@pytest.mark.slow
def test_of_many_failing_partitions_the_newest_have_an_evaluation(tiny, definitions, monkeypatch):
    monkeypatch.setattr("pip_dagster.orchestration.expectation_checks.FAILING_REPORTED", 1)
    tiny.source(f"DELETE FROM raw.orders WHERE day = '{THIRD}' AND order_id % 50 > 19")
    *ones, whole = evaluations(run(definitions, "2024-03-01", "2024-03-04"))[ORDERS]
    assert [each.partition for each in ones] == [THIRD]
    assert whole.metadata["not met in"].value == f"{SECOND}, {THIRD}"
