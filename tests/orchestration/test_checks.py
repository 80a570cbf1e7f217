"""The expectations as Dagster's asset checks: an evaluation for each asset and partition, severity and tables."""

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
    return {
        ("/".join(e.asset_key.path), e.partition): e
        for event in result.all_events
        if event.event_type_value == "ASSET_CHECK_EVALUATION"
        for e in [event.asset_check_evaluation_data]
        if e.partition
    }


@pytest.mark.slow
def test_each_asset_and_partition_has_an_evaluation_and_a_blocked_one_fails_alone(definitions):
    result = run(definitions, "2024-03-01", "2024-03-04")
    found = evaluations(result)
    assert not result.success
    assert {name for name, _ in found} == {"orders/sources/orders", "orders/features", "orders/predictions"}
    unmet = {key: (e.passed, e.severity.value) for key, e in found.items() if not e.passed}
    assert unmet == {
        ("orders/sources/orders", SECOND): (False, "ERROR"),
        ("orders/features", THIRD): (False, "WARN"),
    }
    assert "enough is not met (observed 21)" in found["orders/sources/orders", SECOND].description
    materialized = {
        e.partition for e in result.asset_materializations_for_node("orders") if e.asset_key.path[-1] == "predictions"
    }
    assert materialized == {"2024-03-01", THIRD, "2024-03-04"}


@pytest.mark.slow
def test_the_metadata_show_what_is_not_met_and_examples_as_tables(definitions):
    warned = evaluations(run(definitions, THIRD, THIRD))["orders/features", THIRD]
    (row,) = warned.metadata["unmet"].records
    assert (row.data["expectation"], row.data["broken_by_rows"], row.data["of_rows"]) == ("small", 3, 50)
    rows = [record.data["row"] for record in warned.metadata["examples"].records]
    assert rows == [f"order_id = {100 + i}, quantity = 99" for i in range(3)]


@pytest.mark.slow
def test_a_sound_range_succeeds_with_a_summary_for_each_check(definitions):
    result = run(definitions, "2024-03-04", "2024-03-04")
    assert result.success
    assert all(e.passed for e in evaluations(result).values())


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
    assert result.success
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed and "observed 21" in evaluation.description


@pytest.mark.slow
def test_a_run_with_a_blocked_partition_still_ends_its_own_checks(definitions):
    result = run(definitions, "2024-03-01", "2024-03-04")
    ended = {
        "/".join(e.asset_key.path): e.passed
        for event in result.all_events
        if event.event_type_value == "ASSET_CHECK_EVALUATION"
        for e in [event.asset_check_evaluation_data]
        if e.partition is None
    }
    assert ended == {"orders/features": False, "orders/predictions": True}


@pytest.mark.slow
def test_a_long_run_tells_of_partitions_that_are_not_sound_or_were_not_and_sums_up_the_others(
    tiny, definitions, monkeypatch, tmp_path
):
    monkeypatch.setattr("pip_dagster.orchestration.checks.EACH_REPORTED_UP_TO", 2)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        first = run(definitions, "2024-03-01", "2024-03-04", instance)
        assert {key: e.passed for key, e in evaluations(first).items()} == {
            ("orders/sources/orders", SECOND): False,
            ("orders/features", THIRD): False,
        }
        whole = {
            "/".join(e.asset_key.path): (e.passed, e.metadata["partitions"].value)
            for event in first.all_events
            if event.event_type_value == "ASSET_CHECK_EVALUATION"
            for e in [event.asset_check_evaluation_data]
            if e.partition is None
        }
        assert whole == {
            "orders/sources/orders": (False, 4),
            "orders/features": (False, 3),
            "orders/predictions": (True, 3),
        }
        tiny.source(f"UPDATE raw.orders SET quantity = 1 WHERE day = '{THIRD}'")
        second = run(definitions, "2024-03-01", "2024-03-04", instance)
    assert {key: e.passed for key, e in evaluations(second).items()} == {
        ("orders/sources/orders", SECOND): False,
        ("orders/features", THIRD): True,
    }
