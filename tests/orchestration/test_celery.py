"""Runs on other machines: a real Celery worker takes a run from a broker of files and scores into the lake."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import pytest
import yaml

from pip_dagster.orchestration.dagster_private import WorkerStatus

ROOT = Path(__file__).parents[2]
FIRST = "2024-03-01"
ENDLESS = """
SELECT order_id, day, gift, shop, quantity, amount FROM raw.orders
WHERE day >= $start_date AND day < $end_date AND (SELECT count(*) FROM range(10000000) a,
    range(10000000) b WHERE a.range * b.range = -1) = 0
"""

pytestmark = [
    pytest.mark.slice,
    pytest.mark.lake("only"),
    pytest.mark.skipif(find_spec("dagster_celery") is None, reason="needs dagster-celery"),
]


def celery_config(home):
    """Broker and results as files, which needs no server; else as in examples/deploy."""
    shipped = yaml.safe_load((ROOT / "examples" / "deploy" / "celery.yaml").read_text())
    folders = {"data_folder_in": str(home / "queue"), "data_folder_out": str(home / "queue")}
    folders |= {"control_folder": str(home / "control")}
    for folder in ("queue", "control", "results"):
        (home / folder).mkdir()
    return {
        "broker": "filesystem://",
        "backend": f"file://{home / 'results'}",
        "config_source": shipped["execution"]["config"]["config_source"] | {"broker_transport_options": folders},
    }


@pytest.fixture
def home(tmp_path):
    """A DAGSTER_HOME whose runs go to Celery's workers."""
    home = tmp_path / "home"
    home.mkdir()
    celery = celery_config(home)
    launcher = {"module": "pip_dagster.orchestration.celery_launcher", "class": "WatchedCeleryRunLauncher"}
    options = celery | {"default_queue": "dagster", "worker_gone_after_seconds": 1}
    (home / "dagster.yaml").write_text(
        yaml.safe_dump(
            {
                "telemetry": {"enabled": False},
                # Else a run is queued until the daemon, which is not started here, hands it to the launcher.
                "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
                "run_launcher": launcher | {"config": options},
            }
        )
    )
    dg.DagsterInstance.from_config(str(home)).dispose()  # two that make its SQLite at once would be in each other's way
    (home / "celery.yaml").write_text(yaml.safe_dump({"execution": {"config": celery}}))
    return home


def environment(tiny, home):
    path = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]  # dagster-celery looks for celery there
    return os.environ | {"DAGSTER_HOME": str(home), "PIP_DAGSTER_PROJECT": str(tiny.root), "PATH": path}


@contextmanager
def worker(tiny, home, *options):
    """A worker, killed with all its processes in the end."""
    with (home / "worker.log").open("w") as log:
        command = [
            "-m",
            "dagster_celery.cli",
            "worker",
            "start",
            "-A",
            "dagster_celery.app",
            "-y",
            home / "celery.yaml",
        ]
        found = subprocess.Popen(
            [sys.executable, *command, "--", *options],
            cwd=tiny.root,
            env=environment(tiny, home),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield found
    finally:
        with suppress(ProcessLookupError):
            os.killpg(found.pid, signal.SIGKILL)
        found.wait()


def launch(tiny, home):
    tags = json.dumps({"dagster/partition": FIRST})
    words = ["-m", "dagster", "job", "launch", "-m", "acme.definitions", "-j", "orders_job", "--tags", tags]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tiny.root,
        env=environment(tiny, home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def until(what, process, home):
    """The first true answer while the worker runs."""
    end = time.monotonic() + 180
    while not (answer := what()):
        assert process.poll() is None and time.monotonic() < end, (home / "worker.log").read_text()
        time.sleep(0.3)
    return answer


def test_a_worker_scores_a_partition_into_the_lake(tiny, home):
    with worker(tiny, home, "--pool", "solo") as process:
        launch(tiny, home)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            run = until(lambda: (found := instance.get_runs()[0]).is_finished and found, process, home)
            events = [event.message for event in instance.all_logs(run.run_id)]
    assert run.is_success, "\n".join(events) + (home / "worker.log").read_text()
    assert any("Celery task has been forwarded" in event for event in events)
    ((run_id,),) = tiny.warehouse("SELECT run_id FROM ledger.partitions WHERE is_live")
    assert run_id == run.run_id
    assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")


@pytest.mark.soak
def test_a_run_whose_worker_was_killed_is_reported_to_run_monitoring(tiny, home):
    """Celery itself says STARTED for ever, upon which Dagster would never end the run."""
    from dagster_celery.launcher import CeleryRunLauncher

    tiny.declare(ENDLESS)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        launcher = instance.run_launcher
        with worker(tiny, home, "--concurrency", "1") as process:
            launch(tiny, home)
            run = until(
                lambda: (r := instance.get_runs()[0]).status == dg.DagsterRunStatus.STARTED and r, process, home
            )
            for _ in range(2):
                assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
                launcher._answer = (float("-inf"), "")
                time.sleep(1.1)
        assert CeleryRunLauncher.check_run_worker_health(launcher, run).status == WorkerStatus.RUNNING
        launcher._answer = (float("-inf"), "")
        assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING, "it may only be restarting"
        time.sleep(1.1)
        found = launcher.check_run_worker_health(run)
        assert found.status == WorkerStatus.FAILED and "No Celery worker has executed the run for" in found.msg


def test_a_run_that_was_not_launched_with_celery_is_left_alone(home):
    """As `dagster asset materialize` executes it, in a container of the deployment."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = instance.create_run_for_job(dg.GraphDefinition("orders_job").to_job(), status=dg.DagsterRunStatus.STARTED)
        for _ in range(2):
            assert instance.run_launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
            time.sleep(1.1)
        assert instance.run_launcher.get_run_worker_debug_info(run) is None
        assert not instance.run_launcher.terminate(run.run_id)


def test_a_broker_that_does_not_answer_ends_no_run(home, monkeypatch, caplog):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        launcher = instance.run_launcher
        run = instance.create_run_for_job(dg.GraphDefinition("orders_job").to_job(), status=dg.DagsterRunStatus.STARTED)
        instance.add_run_tags(run.run_id, {"dagster-celery/task_id": "1"})
        run = instance.get_run_by_id(run.run_id)
        monkeypatch.setattr(launcher, "_executed", lambda: (_ for _ in ()).throw(ConnectionError("refused")))
        for _ in range(2):
            assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
            time.sleep(1.1)
    assert "does not answer; runs count as running: refused" in caplog.text


@pytest.mark.soak
def test_a_run_that_is_terminated_is_cancelled_and_its_worker_takes_the_next(tiny, home):
    """The next run reads the declaration as it is by then, not as the worker read it before."""
    tiny.declare(ENDLESS)
    with dg.DagsterInstance.from_config(str(home)) as instance, worker(tiny, home, "--concurrency", "1") as process:
        launch(tiny, home)
        run = until(lambda: (r := instance.get_runs()[0]).status == dg.DagsterRunStatus.STARTED and r, process, home)
        time.sleep(3)  # into its query
        instance.report_run_canceling(run)
        assert instance.run_launcher.terminate(run.run_id)
        ended = until(lambda: (r := instance.get_run_by_id(run.run_id)).is_finished and r, process, home)
        assert ended.status == dg.DagsterRunStatus.CANCELED
        tiny.declare()
        (tiny.folder / "features.sql").write_text(ENDLESS.partition(" AND (SELECT")[0])
        launch(tiny, home)
        until(lambda: instance.get_runs()[0].is_success, process, home)
    assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")
