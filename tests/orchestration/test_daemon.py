"""The real daemon, with real runs: what a late row sets going, and what is left when processes are killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.execution.backfill import PartitionBackfill

from pip_dagster.orchestration.alive import GONE
from pip_dagster.orchestration.definitions import build_definitions

pytestmark = pytest.mark.slice

FIRST, SECOND, THIRD, FOURTH = "2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"
GRID = {"end": "2024-03-05", "max_per_run": 2}
ROOT = Path(__file__).parents[2]
S = dg.DagsterRunStatus


@pytest.fixture
def home(tmp_path, quick_daemon, monkeypatch):
    """A DAGSTER_HOME with the settings that this project ships; it is looked for dead runs more often."""
    folder = tmp_path / "home"
    folder.mkdir()
    settings = yaml.safe_load((ROOT / "pip_dagster/scaffold/templates/dagster.yaml").read_text())
    settings["run_monitoring"]["poll_interval_seconds"] = 2
    (folder / "dagster.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("PYTHONPATH", f"{quick_daemon}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return folder


@pytest.fixture
def instance(home, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.from_config(str(home)) as found:
        yield found


@contextmanager
def process(tiny, home, *arguments):
    """A Dagster process of this project, ended with all that it started."""
    log = home / f"{arguments[0].replace(' ', '-')}-{time.monotonic_ns()}.log"
    environment = os.environ | {
        "DAGSTER_HOME": str(home),
        "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR": "1",  # as docs/automation.md advises
        "PYTHONPATH": f"{tiny.root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "PIP_DAGSTER_PROJECT": str(tiny.root),
    }
    with log.open("w") as out:
        found = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=tiny.root,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield found
    except BaseException:
        print(log.read_text()[-6000:])
        raise
    finally:
        kill(found)


def kill(found):
    """The process and its whole session."""
    if found.poll() is None:
        os.killpg(found.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            found.wait(15)
    with suppress(ProcessLookupError):
        os.killpg(found.pid, signal.SIGKILL)
    found.wait()


@contextmanager
def daemon(tiny, home, *where):
    with process(tiny, home, "dagster._daemon", "run", *(where or ("-m", "acme.definitions"))) as found:
        yield found


def until(what, seconds=90):
    """The first true answer."""
    end = time.monotonic() + seconds
    while True:
        if answer := what():
            return answer
        assert time.monotonic() < end, f"waited {seconds} s"
        time.sleep(0.2)


def runs(instance, *statuses):
    return sorted(
        instance.get_runs(dg.RunsFilter(statuses=list(statuses))), key=lambda run: run.tags.get("dagster/run_key", "")
    )


def ticks(instance, name="orders_source_changes"):
    found = []
    for state in instance.all_instigator_state():
        if state.instigator_name == name:
            found += instance.get_ticks(state.instigator_origin_id, state.selector_id)
    return sorted(found, key=lambda tick: tick.timestamp)


def skips_since(instance, moment):
    return [t for t in ticks(instance) if t.timestamp > moment and t.status.value == "SKIPPED"]


def worker_of(instance, run):
    """The process that works on a run, once its step has begun."""
    for record in instance.get_records_for_run(run.run_id).records:
        event = record.event_log_entry.dagster_event
        if event and event.event_type_value == "STEP_START":
            return event.pid
    return None


def running(tiny):
    sensors = {"source_changes": {"status": "running", "interval": "5 seconds", "lock_deadline": 0.5}}
    return tiny.declare(partitions=GRID, sensors=sensors, reruns={"back_off": "0 minutes"}, schedule=None)


def late_row(tiny, number, like):
    tiny.source(
        f"INSERT INTO raw.orders SELECT * REPLACE ({number} AS order_id) FROM raw.orders WHERE order_id = {like}"
    )


def test_a_late_row_is_one_run_and_a_killed_run_is_retried_once_with_nothing_doubled(scored, home, instance):
    running(scored)
    with daemon(scored, home):
        until(lambda: [t for t in ticks(instance) if t.status.value == "SKIPPED"])
        late_row(scored, 9001, like=60)
        [run] = until(lambda: runs(instance, S.SUCCESS))
        assert run.tags["dagster/partition"] == SECOND
        assert run.tags["pip_dagster/reason"] == f"source changed: orders {SECOND} (+1 row)"
        assert scored.scores() == scored.expected()
        made = "SELECT count(*) FROM ledger.scorings"
        [(before,)] = scored.warehouse(made)
        assert before == 5, "four days, and the one that was made again"
        ended = time.time()
        assert "Nothing is stale" in until(lambda: skips_since(instance, ended))[0].skip_reason
        assert len(runs(instance)) == 1, "the next look asks for nothing"

        late_row(scored, 9002, like=110)
        # The run is caught before it can write: it waits for the warehouse, as the looks do, who say so.
        [run] = until(lambda: [r for r in runs(instance) if r.tags.get("dagster/partition") == THIRD])
        with scored.locked():
            pid = until(lambda: worker_of(instance, run))
            os.kill(pid, signal.SIGKILL)
            until(lambda: instance.get_run_by_id(run.run_id).status == S.FAILURE)
            ended = time.time()
            assert "was not free" in until(lambda: skips_since(instance, ended))[0].skip_reason
        until(lambda: len(runs(instance, S.SUCCESS)) == 2)
        ended = time.time()
        until(lambda: skips_since(instance, ended))
    assert len(runs(instance)) == 3 and len(runs(instance, S.FAILURE)) == 1
    again = [r for r in runs(instance) if r.tags.get("dagster/partition") == THIRD]
    assert sorted(r.tags["dagster/run_key"][-2:] for r in again) == ["-1", "-2"]
    assert scored.scores() == scored.expected()
    assert scored.warehouse("SELECT count(*), count(DISTINCT order_id) FROM orders.predictions") == [(202, 202)]
    assert scored.warehouse(made) == [(before + 1,)]


@pytest.mark.soak
def test_a_backfill_goes_on_after_its_code_server_was_killed(tiny, home, instance):
    """Killed with a run at work, which goes on without it; a new server on the same port takes the rest."""
    tiny.declare(partitions=GRID | {"max_per_run": 1}, schedule=None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    # One at a time: a launch that is cut short by the kill is another story.
    settings = yaml.safe_load((home / "dagster.yaml").read_text())
    settings["concurrency"]["runs"] = {"max_concurrent_runs": 1}
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    location = {"host": "127.0.0.1", "port": int(port), "location_name": "acme"}
    (tiny.root / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": location}]}))
    server = ("dagster", "api", "grpc", "-m", "acme.definitions", "--host", "127.0.0.1", "--port", port)
    with process(tiny, home, *server) as first, ExitStack() as stack:
        until(lambda: answers(port))
        stack.enter_context(daemon(tiny, home, "-w", "workspace.yaml"))
        backfill = backfill_of(tiny, instance, [FIRST, SECOND, THIRD, FOURTH])
        with tiny.locked():
            [run] = until(lambda: [r for r in instance.get_runs() if worker_of(instance, r)][:1])
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
        with process(tiny, home, *server):
            until(lambda: instance.get_backfill(backfill).status.value == "COMPLETED_SUCCESS", 180)
            assert {r.status for r in instance.get_runs()} == {S.SUCCESS}, failures(instance)
            assert instance.get_run_by_id(run.run_id).status == S.SUCCESS
    assert tiny.scores() == tiny.expected()
    assert tiny.warehouse("SELECT partition_key, count(*) FROM ledger.scorings GROUP BY ALL ORDER BY 1") == [
        (day, 1) for day in (FIRST, SECOND, THIRD, FOURTH)
    ]


@pytest.mark.soak
def test_after_a_power_cut_the_run_at_work_is_ended_by_the_daemon(scored, home, instance):
    """Daemon, code server and worker die at once: nobody is left to say so, and no sensor is on that would look."""
    scored.declare(partitions=GRID, schedule=None)
    with daemon(scored, home) as found, scored.locked():
        backfill = backfill_of(scored, instance, [FIRST])
        [run] = until(lambda: [r for r in instance.get_runs() if worker_of(instance, r)][:1])
        os.killpg(found.pid, signal.SIGKILL)
        found.wait()
    assert instance.get_run_by_id(run.run_id).status == S.STARTED
    with daemon(scored, home):
        until(lambda: instance.get_run_by_id(run.run_id).status == S.FAILURE)
        until(lambda: instance.get_backfill(backfill).status.value == "COMPLETED_FAILED")
    events = [each.event_log_entry.dagster_event for each in instance.get_records_for_run(run.run_id).records]
    assert any(event and GONE in (event.message or "") for event in events)


def failures(instance):
    """What the failed runs' logs say."""
    return [
        record.event_log_entry.user_message
        for run in runs(instance, S.FAILURE)
        for record in instance.get_records_for_run(run.run_id).records
    ]


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def backfill_of(tiny, instance, days):
    """What the UI's *Launch backfill* leaves for the daemon; its id."""
    found = PartitionBackfill.from_asset_partitions(
        asset_graph=build_definitions(tiny.pipeline()).get_repository_def().asset_graph,
        backfill_id="backfill",
        tags={},
        backfill_timestamp=time.time(),
        asset_selection=[dg.AssetKey(["orders", name]) for name in ("features", "predictions")],
        partition_names=days,
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(found)
    return found.backfill_id
