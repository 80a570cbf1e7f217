"""Dagster's private names, on real instances: the name of each test says what breaks where one of them changes."""

import ast
import inspect
import os
import re
import subprocess
import time
from pathlib import Path

import dagster as dg
import pytest

import pip_dagster
from pip_dagster.orchestration import dagster_private as private

ASSET = dg.AssetKey(["orders", "features"])
PARTITIONS = dg.DailyPartitionsDefinition(start_date="2024-03-01", end_date="2024-03-05")


@dg.asset(key=ASSET, partitions_def=PARTITIONS)
def features():
    pass


@pytest.fixture
def instance():
    with dg.instance_for_test() as found:
        yield found


@pytest.mark.slice
def test_all_of_them_are_in_one_module():
    root = Path(pip_dagster.__file__).parent
    for file in root.rglob("*.py"):
        if file == Path(private.__file__):
            continue
        text = file.read_text(encoding="utf-8")
        assert "get_step_execution_context" not in text, file
        modules = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                modules.add(node.module or "")
            elif isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
        assert not [name for name in modules if re.match(r"dagster[^.]*\._|dagster.*\._", name)], file
        if "orchestration" in file.parts or "components" in file.parts:
            # Private attributes of objects that are not ours: `self._x` is.
            assert not re.findall(
                r"\b(?!self\b|cls\b)[a-z]\w*\._(?!replace\b)[a-z]\w*", re.sub(r'"[^"\n]*"', "", text)
            ), file


def test_else_a_partition_that_passes_again_stays_failed_in_the_ui(instance):
    key = dg.AssetCheckKey(ASSET, "expectations")
    for partition, passed in (("2024-03-01", False), ("2024-03-02", True)):
        evaluation = dg.AssetCheckEvaluation(ASSET, "expectations", passed, {}, partition=partition)
        instance.report_runless_asset_event(evaluation)
    assert list(private.failed_evaluations(instance, key)) == ["2024-03-01"]


def test_else_each_partition_of_a_range_stays_in_the_history_of_a_check_as_skipped(instance):
    key = dg.AssetCheckKey(ASSET, "sound")

    @dg.multi_asset(
        specs=[dg.AssetSpec(ASSET, partitions_def=PARTITIONS)],
        check_specs=[dg.AssetCheckSpec("sound", asset=ASSET)],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def step(context: dg.AssetExecutionContext):
        private.forget_planned_checks(context.instance, context.run.run_id)
        yield dg.MaterializeResult(asset_key=ASSET)
        yield dg.AssetCheckResult(asset_key=ASSET, check_name="sound", passed=True)

    tags = {"dagster/asset_partition_range_start": "2024-03-01", "dagster/asset_partition_range_end": "2024-03-03"}
    assert dg.materialize([step], instance=instance, tags=tags).success
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=9)
    assert [record.status.value for record in history] == ["SUCCEEDED"]


def test_else_the_runs_of_our_own_backfills_are_not_grouped(instance):
    graph, keys = dg.Definitions([features]).resolve_asset_graph(), ["2024-03-01", "2024-03-02"]
    for done, status in ((keys[:1], "COMPLETED_FAILED"), (keys, "COMPLETED_SUCCESS")):
        runs = private.FinishedRuns("ours", [ASSET], keys, done, time.time(), {"user": "ada"})
        private.record_backfill(instance, graph, runs)
        record = instance.get_backfill("ours")
        assert record.status.value == status and record.backfill_end_timestamp
        subset = record.get_asset_backfill_data(graph).materialized_subset
        assert {each.partition_key for each in subset.iterate_asset_partitions()} == {*done}
    assert private.requested_backfills(instance) == [], "the daemon would execute it"


class TestElseASensorRequestsWhatABackfillIsAbout:
    @pytest.fixture
    def graph(self):
        return dg.Definitions([features]).resolve_asset_graph()

    @pytest.fixture
    def backfill(self, instance, graph):
        from dagster._core.execution.backfill import PartitionBackfill

        added = PartitionBackfill.from_asset_partitions(
            asset_graph=graph,
            backfill_id="one",
            tags={},
            backfill_timestamp=time.time(),
            asset_selection=[ASSET],
            partition_names=["2024-03-01", "2024-03-02"],
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        instance.add_backfill(added)
        return added

    def test_requested(self, instance, backfill):
        from dagster._core.execution.backfill import BulkActionStatus

        assert [each.backfill_id for each in private.requested_backfills(instance)] == ["one"]
        instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
        assert private.requested_backfills(instance) == []

    def test_targets(self, backfill, graph):
        keys = ["2024-03-02", "2024-03-03"]
        assert private.backfill_targets(backfill, [ASSET], graph, keys) == {"2024-03-02"}
        assert private.backfill_targets(object(), [ASSET], graph, keys) == set(keys), "if unreadable, all of them"


def test_else_predictions_are_stale_as_soon_as_they_are_materialized(instance):
    model = dg.AssetSpec("model")
    seen = []

    @dg.asset(deps=[model])
    def predictions(context: dg.AssetExecutionContext):
        step = context.get_step_execution_context()
        step.fetch_external_input_asset_version_info()
        seen.append(dg.AssetKey("model") in step.input_asset_records)
        private.forget_input_version(context, dg.AssetKey("model"))
        seen.append(dg.AssetKey("model") in step.input_asset_records)

    assert dg.materialize([model, predictions], instance=instance).success
    assert seen == [True, False]


def test_else_the_launcher_does_not_know_its_instance_and_run_monitoring_fails(instance):
    assert private.instance_of(instance.run_launcher) is instance


def test_else_run_monitoring_cannot_read_what_the_launcher_answers():
    found = inspect.signature(dg.DefaultRunLauncher.check_run_worker_health).return_annotation
    assert "CheckRunHealthResult" in str(found)
    assert {"RUNNING", "FAILED"} <= {status.name for status in private.WorkerStatus}
    answer = private.CheckRunHealthResult(private.WorkerStatus.FAILED, "gone")
    assert (answer.status, answer.msg) == (private.WorkerStatus.FAILED, "gone")


def test_ctrl_c_does_not_reach_the_processes_that_copy_a_runs_output(tmp_path):
    """They are in the terminal's process group otherwise, and Dagster's watcher would print a traceback."""
    from dagster._core.execution import compute_logs

    with (
        private.output_copied_quietly(),
        (tmp_path / "out").open("w") as out,
        compute_logs.execute_posix_tail(str(tmp_path / "out"), out) as pids,
    ):
        assert len(pids) == 2 and all(os.getpgid(pid) == pid for pid in pids)
    assert vars(compute_logs)["subprocess"] is subprocess
