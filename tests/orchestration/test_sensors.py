"""What each sensor's look asks for or says, on real sources, warehouse and registry."""

import fcntl
import json
import os
import time
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from pip_dagster.orchestration.definitions import build_definitions

FIRST, SECOND, THIRD, FOURTH = "2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"
GRID = {"end": "2024-03-05"}
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@pytest.fixture(scope="module")
def instance():
    with dg.instance_for_test() as found:
        yield found


@pytest.fixture
def look(instance):
    """One look of a sensor: what it asks for as (partitions, tags), or why for nothing; each test its own runs."""
    for run in instance.get_runs():
        instance.delete_run(run.run_id)

    def one(tiny, name="source_changes", cursor=None):
        definitions = build_definitions(tiny.pipeline())
        sensor = definitions.resolve_sensor_def(f"orders_{name}")
        repository = definitions.get_repository_def()
        context = dg.build_sensor_context(instance=instance, repository_def=repository, cursor=cursor)
        return sensor.evaluate_tick(context)

    return one


def asked(tick):
    assert tick.run_requests, tick.skip_message
    return [request.partition_key or tuple(request.tags[name] for name in RANGE) for request in tick.run_requests]


def launch(instance, request, status, tiny):
    """The run that a daemon would make of a request."""
    tags = dict(request.tags) | {"dagster/run_key": request.run_key}
    return instance.create_run_for_job(job, tags=tags, status=status)


@dg.op
def nothing():
    pass


@dg.job(name="orders_job")
def job():
    nothing()


def test_a_late_row_is_asked_for_with_its_reason_and_nothing_else(scored, look):
    scored.declare(partitions=GRID)
    assert look(scored).skip_message == "Nothing is stale; current: 4 partitions."
    scored.source("INSERT INTO raw.orders SELECT * REPLACE (9001 AS order_id) FROM raw.orders WHERE order_id = 60")
    tick = look(scored)
    assert asked(tick) == [SECOND]
    assert tick.run_requests[0].tags["pip_dagster/reason"] == f"source changed: orders {SECOND} (+1 row)"
    scored.run(SECOND)
    assert look(scored).skip_message.startswith("Nothing is stale")


@pytest.mark.parametrize(
    ("statement", "partitions"),
    [
        ("UPDATE raw.orders SET quantity = 7 WHERE order_id IN (0, 150)", [FIRST, FOURTH]),
        ("DELETE FROM raw.orders WHERE order_id IN (0, 60)", [(FIRST, SECOND)]),
    ],
)
def test_corrected_and_deleted_rows(scored, look, statement, partitions):
    scored.declare(partitions=GRID).source(statement)
    assert asked(look(scored)) == partitions


def test_the_same_look_twice_asks_for_the_same_run(scored, look):
    scored.declare(partitions=GRID).source("DELETE FROM raw.orders WHERE order_id IN (0, 60)")
    first, second = look(scored), look(scored)
    assert [r.run_key for r in first.run_requests] == [r.run_key for r in second.run_requests]
    scored.source("DELETE FROM raw.orders WHERE order_id = 61")
    assert look(scored).run_requests[0].run_key != first.run_requests[0].run_key


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_what_a_run_is_about_is_not_asked_for(scored, look, instance, status):
    scored.declare(partitions=GRID).source("DELETE FROM raw.orders WHERE order_id IN (0, 60, 150)")
    tick = look(scored)
    assert asked(tick) == [(FIRST, SECOND), FOURTH]
    launch(instance, tick.run_requests[0], status, scored)
    assert asked(look(scored)) == [FOURTH]
    # Whoever launched it: a person's run of one partition counts too.
    instance.create_run_for_job(job, tags={"dagster/partition": FOURTH}, status=status)
    assert "3 stale partitions in runs" in look(scored).skip_message


def test_what_a_backfill_is_about_is_not_asked_for(scored, look, instance):
    from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

    scored.declare(partitions=GRID).source("DELETE FROM raw.orders WHERE order_id IN (0, 60, 150)")
    graph = build_definitions(scored.pipeline()).get_repository_def().asset_graph
    keys = [dg.AssetKey(["orders", name]) for name in ("features", "predictions")]
    backfill = PartitionBackfill.from_asset_partitions(
        asset_graph=graph,
        backfill_id="one",
        tags={},
        backfill_timestamp=time.time(),
        asset_selection=keys,
        partition_names=[FIRST, SECOND],
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    assert asked(look(scored)) == [FOURTH]
    instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    assert asked(look(scored)) == [(FIRST, SECOND), FOURTH]


def test_caps(scored, look):
    scored.declare(partitions=GRID, sensors={"source_changes": {"max_runs": 1, "max_partitions": 2}})
    scored.source("UPDATE raw.orders SET quantity = 7")
    assert asked(look(scored)) == [(FIRST, SECOND)]
    scored.declare(partitions=GRID | {"max_per_run": 1}, sensors={"source_changes": {"max_runs": 3}})
    assert asked(look(scored)) == [FIRST, SECOND, THIRD]


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTING", "STARTED"])
def test_a_run_whose_process_died_is_asked_for_again_and_at_last_not(scored, look, instance, status):
    """Also one that failed before its step began: in the queue, or while a code server was to launch it."""
    scored.declare(partitions=GRID, reruns={"attempts": 2, "back_off": "0 minutes"})
    scored.source("DELETE FROM raw.orders WHERE order_id = 0")
    keys = []
    for _ in range(2):
        [request] = look(scored).run_requests
        keys.append(request.run_key)
        run = launch(instance, request, dg.DagsterRunStatus(status), scored)
        instance.report_run_failed(run)
    assert len(set(keys)) == 2
    assert "2 runs of 2 ended without building it" in look(scored).skip_message


def test_what_another_run_failed_to_begin_is_asked_for(tiny, look, instance):
    """A run of a schedule, or of a backfill: nothing is known of it but that it made nothing."""
    tiny.declare(partitions=GRID, sensors={"source_changes": {"missing": "all"}})
    run = instance.create_run_for_job(job, tags={"dagster/partition": FIRST}, status=dg.DagsterRunStatus.STARTING)
    assert asked(look(tiny)) == [(SECOND, FOURTH)]
    instance.report_run_failed(run)
    assert asked(look(tiny)) == [(FIRST, FOURTH)]


def test_a_canceled_run_stays_canceled_until_something_changes(scored, look, instance):
    scored.declare(partitions=GRID).source("DELETE FROM raw.orders WHERE order_id = 0")
    run = launch(instance, look(scored).run_requests[0], dg.DagsterRunStatus.STARTED, scored)
    instance.report_run_canceled(run)
    assert "canceled" in look(scored).skip_message
    scored.source("DELETE FROM raw.orders WHERE order_id = 1")
    assert asked(look(scored)) == [FIRST]


@pytest.mark.slice
def test_a_partition_that_fails_is_tried_again_after_a_wait(scored, look):
    scored.declare(partitions=GRID, reruns={"attempts": 2, "back_off": "1 hour"})
    scored.source("UPDATE raw.orders SET order_id = 3 WHERE order_id = 4")
    assert asked(look(scored)) == [FIRST]
    scored.run(FIRST)
    assert f"{FIRST}: failed, attempt 2 of 2 from " in look(scored).skip_message
    scored.declare(partitions=GRID, reruns={"attempts": 2, "back_off": "0 minutes"})
    assert asked(look(scored)) == [FIRST]
    scored.run(FIRST)
    assert "failed 2 of 2 times" in look(scored).skip_message


def test_history_that_was_never_made_is_left_to_a_backfill(tiny, look):
    tiny.declare(partitions=GRID, sensors={"source_changes": {"missing": {"last": 2}}})
    assert asked(look(tiny)) == [(THIRD, FOURTH)]
    tiny.declare(partitions=GRID, sensors={"source_changes": {"missing": "all"}})
    assert asked(look(tiny)) == [(FIRST, FOURTH)]
    tiny.declare(partitions=GRID, sensors={"source_changes": {"missing": "none"}})
    assert look(tiny).skip_message


def test_a_promotion_is_asked_for_as_far_as_declared(scored, look):
    scored.declare(partitions=GRID, reruns={"promotion": {"last": 2}})
    scored.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    assert look(scored).skip_message, "the other sensor's"
    tick = look(scored, "model_promoted")
    assert asked(tick) == [(THIRD, FOURTH)]
    assert tick.run_requests[0].tags["pip_dagster/reason"] == "model promoted v1→v2"
    scored.declare(partitions=GRID)
    assert look(scored, "model_promoted").skip_message


def test_a_locked_warehouse_is_a_skip_with_the_holder(scored, look):
    scored.declare(partitions=GRID, sensors={"source_changes": {"lock_deadline": 0.1}})
    path = scored.project.warehouse
    with path.with_name(path.name + ".lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump({"pid": os.getpid(), "purpose": "a test", "since": "now", "command": "pytest"}, file)
        file.flush()
        assert f"PID {os.getpid()}" in look(scored).skip_message
    assert look(scored).skip_message.startswith("Nothing is stale")


def test_a_locked_source_is_a_skip(scored, look):
    scored.declare(partitions=GRID, sensors={"source_changes": {"lock_deadline": 0.1}})
    holder = scored.python(
        """
        import duckdb, sys, time
        con = duckdb.connect("sources.duckdb"); print("held", flush=True); sys.stdin.read() or time.sleep(60)
        """
    )
    try:
        assert holder.stdout.readline() == "held\n"
        assert "sources.duckdb stayed locked" in look(scored).skip_message
    finally:
        holder.kill()
        holder.wait()


def test_a_look_leaves_nothing_open(scored, look):
    scored.declare(partitions=GRID)
    look(scored)
    with duckdb.connect(str(scored.root / "sources.duckdb")) as con:
        con.execute("DELETE FROM raw.orders WHERE order_id = 0")


def test_what_is_wrong_with_a_source_fails_the_look_with_its_message(scored, look):
    scored.declare(partitions=GRID).source("ALTER TABLE raw.orders RENAME TO order_table")
    with pytest.raises(Exception, match=r"raw\.orders(.|\n)*Did you mean raw.order_table") as caught:
        look(scored)
    assert caught.value


LABELS = {"sql": "labels.sql", "outcome": "returned"}


@pytest.fixture
def labelled(scored):
    scored.source(
        "CREATE TABLE raw.outcomes (order_id BIGINT, day DATE, returned INT)",
        f"INSERT INTO raw.outcomes SELECT order_id, day, 1 FROM raw.orders WHERE day IN ('{FIRST}', '{SECOND}')",
    )
    (scored.folder / "labels.sql").write_text(
        "SELECT order_id, returned FROM raw.outcomes WHERE day >= $start_date AND day < $end_date;"
    )
    sources = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
    return scored.declare(partitions=GRID, sources=sources, gates={"labels": LABELS})


def test_labels_that_arrive_are_told_once(labelled, look):
    tick = look(labelled, "labels_arrived")
    assert "labels exist for 2 partitions" in tick.skip_message
    assert {(e.partition, e.metadata["labelled_rows"].value) for e in tick.asset_events} == {(FIRST, 50), (SECOND, 50)}
    assert "No label arrived" in look(labelled, "labels_arrived", tick.cursor).skip_message
    labelled.source(
        f"UPDATE raw.outcomes SET returned = NULL WHERE day = '{FIRST}' AND order_id = 1",
        f"INSERT INTO raw.outcomes VALUES (170, '{FOURTH}', 0)",
    )
    tick = look(labelled, "labels_arrived", tick.cursor)
    assert "labels arrived for 2 partitions" in tick.skip_message
    assert {(e.partition, e.metadata["labelled_rows"].value) for e in tick.asset_events} == {(FIRST, 49), (FOURTH, 1)}


def test_labels_have_a_sensor_of_their_own(labelled, look):
    """Labels that arrive after a promotion rerun nothing: what was decided is not decided again."""
    labelled.run(FIRST, SECOND, THIRD, FOURTH)
    labelled.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    before = look(labelled, "labels_arrived")
    labelled.source(f"UPDATE raw.outcomes SET returned = 0 WHERE day = '{FIRST}'")
    for sensor in ("source_changes", "model_promoted"):
        tick = look(labelled, sensor)
        assert not tick.run_requests and "source changed" not in tick.skip_message
    assert "labels arrived for 1 partition" in look(labelled, "labels_arrived", before.cursor).skip_message


def test_labels_evaluate_performance_by_themselves_where_the_pipeline_is_monitored(labelled, look, instance):
    sources = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
    labelled.declare(partitions=GRID, sources=sources, labels=LABELS, monitoring={})
    tick = look(labelled, "labels_arrived")
    assert asked(tick) == [(FIRST, SECOND)]
    assert tick.run_requests[0].asset_selection == [dg.AssetKey(["orders", "performance"])]
    labelled.declare(
        partitions=GRID, sources=sources, labels=LABELS, monitoring={}, sensors={"labels_arrived": {"assets": []}}
    )
    assert "assets is empty, so nothing runs" in look(labelled, "labels_arrived").skip_message


@pytest.mark.slice
def test_performance_is_evaluated_again_where_partitions_with_labels_are_scored_later(labelled, look):
    sources = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
    labelled.declare(partitions=GRID, sources=sources, labels=LABELS, monitoring={})
    tick = look(labelled, "labels_arrived")
    assert "No label arrived" in look(labelled, "labels_arrived", tick.cursor).skip_message
    labelled.source(f"DELETE FROM raw.orders WHERE day = '{FIRST}' AND order_id % 2 = 0")
    labelled.run(FIRST)
    tick = look(labelled, "labels_arrived", tick.cursor)
    assert asked(tick) == [FIRST] and not tick.asset_events
    assert tick.run_requests[0].asset_selection == [dg.AssetKey(["orders", "performance"])]
    assert "1 partition with labels scored since" in tick.run_requests[0].tags["pip_dagster/reason"]
    assert "No label arrived" in look(labelled, "labels_arrived", tick.cursor).skip_message


def test_labels_run_what_they_feed(labelled, look):
    sensors = {"labels_arrived": {"assets": ["orders/challengers"], "max_runs": 1}}
    sources = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
    labelled.declare(
        partitions=GRID, sources=sources, gates={"labels": LABELS}, sensors=sensors, scoring={"challengers": ["next"]}
    )
    labelled.source(f"INSERT INTO raw.outcomes VALUES (170, '{FOURTH}', 0)")
    tick = look(labelled, "labels_arrived")
    assert asked(tick) == [(FIRST, SECOND)]
    assert tick.run_requests[0].asset_selection == [dg.AssetKey(["orders", "challengers"])]
    tick = look(labelled, "labels_arrived", tick.cursor)
    assert asked(tick) == [FOURTH]
    assert look(labelled, "labels_arrived", tick.cursor).skip_message


@pytest.fixture
def feeding(labelled):
    sensors = {"labels_arrived": {"assets": ["orders/challengers"]}}
    sources = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
    return labelled.declare(
        partitions=GRID, sources=sources, gates={"labels": LABELS}, sensors=sensors, scoring={"challengers": ["next"]}
    )


@pytest.mark.parametrize("asset", ["orders/features", "orders/predictions"])
def test_labels_do_not_decide_again(labelled, asset):
    with pytest.raises(ValueError, match="once its outcome is known"):
        labelled.declare(sensors={"labels_arrived": {"assets": [asset]}}).pipeline()


def launched(instance, tick):
    """Each request as the daemon launches it: with its sensor's name, and a run key once."""
    keys = {run.tags["dagster/run_key"] for run in instance.get_runs()}
    new = [request for request in tick.run_requests if request.run_key not in keys]
    for request in new:
        tags = dict(request.tags) | {"dagster/sensor_name": "orders_labels_arrived", "dagster/run_key": request.run_key}
        instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.SUCCESS)
    return len(new)


@pytest.mark.parametrize("cursor", [None, "", "reset", "[]", '{"2024-03-01": 7}'])
def test_a_cursor_of_labels_that_was_lost_runs_them_once_more_and_says_so(feeding, look, instance, cursor):
    tick = look(feeding, "labels_arrived")
    assert launched(instance, tick) == 1
    assert launched(instance, look(feeding, "labels_arrived", tick.cursor)) == 0
    lost = look(feeding, "labels_arrived", cursor)
    assert asked(lost) == [(FIRST, SECOND)]
    assert "no earlier tick is recorded" in lost.run_requests[0].tags["pip_dagster/reason"]
    assert launched(instance, look(feeding, "labels_arrived", cursor)) == 1, "Dagster knows no such run key"
    again = look(feeding, "labels_arrived", lost.cursor)
    assert launched(instance, again) == 0 and "No label arrived" in again.skip_message


@pytest.mark.slice
def test_labels_that_change_and_change_back_are_run_each_time(feeding, look, instance):
    cursor = None
    for outcome in (1, 0, 1, 0):
        feeding.source(f"UPDATE raw.outcomes SET returned = {outcome} WHERE order_id = 1")
        first, second = (look(feeding, "labels_arrived", cursor) for _ in range(2))
        assert [r.run_key for r in first.run_requests] == [r.run_key for r in second.run_requests]
        assert launched(instance, first) == 1
        cursor = first.cursor


def test_a_change_of_one_partition_among_many_is_another_run(feeding, look, instance):
    """A run key is of all labels of its run, however many they are."""
    feeding.source(f"INSERT INTO raw.outcomes SELECT order_id, day, 1 FROM raw.orders WHERE day > '{SECOND}'")
    [first] = look(feeding, "labels_arrived").run_requests
    feeding.source(f"UPDATE raw.outcomes SET returned = 0 WHERE order_id = 199 AND day = '{FOURTH}'")
    [second] = look(feeding, "labels_arrived").run_requests
    assert first.run_key != second.run_key


def test_labels_that_are_withdrawn_are_news_too(feeding, look):
    tick = look(feeding, "labels_arrived")
    feeding.source(f"DELETE FROM raw.outcomes WHERE day = '{SECOND}'")
    tick = look(feeding, "labels_arrived", tick.cursor)
    assert asked(tick) == [SECOND] and tick.asset_events[0].metadata["labelled_rows"].value == 0
    assert tick.asset_events[0].description == "The labels are gone."
    tick = look(feeding, "labels_arrived", tick.cursor)
    assert "No label arrived" in tick.skip_message
    feeding.source(f"INSERT INTO raw.outcomes SELECT order_id, day, 1 FROM raw.orders WHERE day = '{SECOND}'")
    assert asked(look(feeding, "labels_arrived", tick.cursor)) == [SECOND]


def test_an_asset_that_labels_feed_and_that_is_not_there_fails_the_look(labelled, look):
    sources = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
    sensors = {"labels_arrived": {"assets": ["orders/predictons"]}}
    labelled.declare(partitions=GRID, sources=sources, gates={"labels": LABELS}, sensors=sensors)
    with pytest.raises(Exception, match="'orders/predictons', which is not an asset(.|\n)*orders/predictions"):
        look(labelled, "labels_arrived")


def test_sensors_start_stopped_unless_declared(tiny):
    def states():
        return {s.name: s.default_status.value for s in build_definitions(tiny.pipeline()).sensors}

    assert states() == {"orders_source_changes": "STOPPED", "orders_model_promoted": "STOPPED"}
    tiny.declare(sensors={"source_changes": {"status": "running"}}, alerts={"command": ["true"]})
    assert states() == {
        "orders_source_changes": "RUNNING",
        "orders_model_promoted": "STOPPED",
        "orders_run_failed": "RUNNING",
        "orders_partition_blocked": "RUNNING",
    }


@pytest.fixture
def told(tmp_path):
    """A command that keeps the alerts, and what it kept."""
    script = tmp_path / "keep.sh"
    script.write_text(f"cat > {tmp_path}/alert.$$\n")
    command = {"command": ["sh", str(script)]}
    return command, lambda: [json.loads(path.read_text()) for path in sorted(Path(tmp_path).glob("alert.*"))]


def test_a_blocked_partition_is_told_once(scored, look, told):
    command, kept = told
    (scored.folder / "expectations.yaml").write_text(
        "features:\n- type: expect_table_row_count_to_be_between\n  kwargs: {min_value: 40}\n  severity: critical\n"
    )
    scored.declare(partitions=GRID, alerts=command, quality="expectations.yaml")
    scored.source(f"DELETE FROM raw.orders WHERE day = '{SECOND}' AND order_id > 60")
    assert "blocked" in scored.run(SECOND)[SECOND].error
    tick = look(scored, "partition_blocked")
    [alert] = kept()
    assert alert["kind"] == "partition_blocked" and alert["partitions"][0]["partition"] == SECOND
    assert "table_row_count_to_be_between is not met" in alert["text"]
    look(scored, "partition_blocked", tick.cursor)
    assert len(kept()) == 1


def test_a_failed_run_is_told_with_its_partitions(scored, instance, told, monkeypatch):
    command, kept = told
    scored.declare(partitions=GRID, alerts=command)
    scored.source("UPDATE raw.orders SET order_id = 60 WHERE order_id = 61")
    definitions = build_definitions(scored.pipeline())
    result = definitions.resolve_job_def("orders_job").execute_in_process(
        instance=instance, partition_key=SECOND, raise_on_error=False
    )
    sensor = definitions.resolve_sensor_def("orders_run_failed")
    context = dg.build_run_status_sensor_context(
        sensor_name="orders_run_failed",
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        dagster_event=result.get_run_failure_event(),
    ).for_run_failure()
    assert sensor(context) is None, "on to the next failed run"
    [alert] = kept()
    assert alert["kind"] == "run_failed" and alert["run_id"] == result.run_id
    assert [each["partition"] for each in alert["partitions"]] == [SECOND] and "in 2 rows" in alert["text"]
    monkeypatch.setattr("pip_dagster.orchestration.sensors.alerts._QUICK_SECONDS", 0.0)
    assert "the next tick continues" in sensor(context).skip_message, "five slow ones would outlast the look"


def test_a_tick_judges_a_part_of_what_differs_and_the_next_goes_on(scored, look, monkeypatch):
    """Dagster ends a tick after a minute: of hundreds of thousands of partitions that differ, each judges so many."""
    from pip_dagster.orchestration.sensors import reruns

    monkeypatch.setattr(reruns, "_AT_ONCE", 1)
    scored.declare(partitions=GRID)
    scored.source(f"DELETE FROM raw.orders WHERE day = '{FIRST}'")
    assert "blocked" in scored.run(FIRST)[FIRST].error
    scored.source(f"DELETE FROM raw.orders WHERE day = '{THIRD}' AND order_id % 5 = 0")
    first = look(scored)
    assert "blocked" in first.skip_message and f"goes on from {THIRD}" in first.skip_message
    second = look(scored, cursor=first.cursor)
    assert asked(second) == [THIRD]
    scored.run(THIRD)
    third = look(scored, cursor=first.cursor)
    assert third.skip_message.endswith("goes on from the first.") and not third.cursor


def test_partitions_that_a_sensor_leaves_to_a_backfill_are_only_counted(tiny, look, monkeypatch):
    from pip_dagster.ledger import plan

    judged = []
    judge = plan._judge
    monkeypatch.setattr(plan, "_judge", lambda case: (judged.append(case.partition.key), judge(case))[1])
    sensor = {"source_changes": {"missing": {"last": 1}}}
    tiny.declare(partitions=GRID, sensors=sensor)
    assert asked(look(tiny)) == judged == [FOURTH]
    tiny.run(FOURTH)
    assert "3 that were never built are left to a backfill" in look(tiny).skip_message
