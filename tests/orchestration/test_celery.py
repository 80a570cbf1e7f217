"""Runs on other machines: a real Celery worker takes a run from a broker of files and scores into the lake."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import pytest
import yaml

FIRST = "2024-03-01"

pytestmark = [
    pytest.mark.slice,
    pytest.mark.lake("only"),
    pytest.mark.skipif(find_spec("dagster_celery") is None, reason="needs dagster-celery"),
]


def celery_config(home):
    """Broker and results as files, which needs no server; else as in examples/deploy."""
    folders = {"data_folder_in": str(home / "queue"), "data_folder_out": str(home / "queue")}
    folders |= {"control_folder": str(home / "control")}
    for folder in ("queue", "control", "results"):
        (home / folder).mkdir()
    return {
        "broker": "filesystem://",
        "backend": f"file://{home / 'results'}",
        "config_source": {"broker_transport_options": folders},
    }


def test_a_worker_scores_a_partition_into_the_lake(tiny, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    celery = celery_config(home)
    launcher = {"module": "dagster_celery.launcher", "class": "CeleryRunLauncher"}
    (home / "dagster.yaml").write_text(
        yaml.safe_dump(
            {
                "telemetry": {"enabled": False},
                # Else a run is queued until the daemon, which is not started here, hands it to the launcher.
                "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
                "run_launcher": launcher | {"config": celery | {"default_queue": "dagster"}},
            }
        )
    )
    dg.DagsterInstance.from_config(str(home)).dispose()  # two that make its SQLite at once would be in each other's way
    worker_config = home / "celery.yaml"
    worker_config.write_text(yaml.safe_dump({"execution": {"config": celery}}))
    path = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]  # dagster-celery looks for celery there
    environment = os.environ | {"DAGSTER_HOME": str(home), "PIP_DAGSTER_PROJECT": str(tiny.root), "PATH": path}
    with (home / "worker.log").open("w") as log:
        command = ["-m", "dagster_celery.cli", "worker", "start", "-A", "dagster_celery.app", "-y", str(worker_config)]
        worker = subprocess.Popen(
            [sys.executable, *command, "--", "--pool", "solo"],
            cwd=tiny.root,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        tags = json.dumps({"dagster/partition": FIRST})
        launch = ["-m", "dagster", "job", "launch", "-m", "acme.definitions", "-j", "orders_job", "--tags", tags]
        done = subprocess.run([sys.executable, *launch], cwd=tiny.root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        with dg.DagsterInstance.from_config(str(home)) as instance:
            until = time.monotonic() + 120
            while not (run := instance.get_runs()[0]).is_finished and time.monotonic() < until:
                assert worker.poll() is None, (home / "worker.log").read_text()
                time.sleep(0.5)
            events = [event.message for event in instance.all_logs(run.run_id)]
            assert run.is_success, "\n".join(events) + (home / "worker.log").read_text()
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    assert any("Celery task has been forwarded" in event for event in events)
    ((run_id,),) = tiny.warehouse("SELECT run_id FROM ledger.partitions WHERE is_live")
    assert run_id == run.run_id
    assert tiny.scores() == tiny.expected(f"day = '{FIRST}'")
