"""Runs whose process is gone without a word are told from those at work, by the sensors and by the daemon."""

import json
import os
import signal
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from pip_dagster.orchestration import alive as signs
from pip_dagster.orchestration.alive import alive, is_gone
from pip_dagster.orchestration.definitions import build_definitions

ROOT = Path(__file__).parents[2]
SECOND = "2024-03-02"
S = dg.DagsterRunStatus


@dg.job(name="orders_job")
def job():
    pass


@pytest.fixture
def instance(tmp_path, monkeypatch):
    """Of the settings that this project ships."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "pip_dagster/scaffold/templates/dagster.yaml").read_text())
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.from_config(str(home)) as found:
        yield found


@pytest.fixture
def started(instance):
    return instance.create_run_for_job(job, status=S.STARTED)


def file_of(instance, run):
    [found] = (Path(instance.storage_directory()) / run.run_id).glob("pip_dagster.*.alive")
    return found


def left_by_a_kill(instance, run, **here):
    """A sign of life without the life."""
    with alive(instance, run.run_id):
        file = file_of(instance, run)
        text = json.dumps(json.loads(file.read_text()) | here)
    file.write_text(text)


def test_a_run_is_gone_only_when_its_sign_of_life_is_there_without_its_lock(instance, started):
    assert not is_gone(instance, started), "it may not have come to its step yet"
    with alive(instance, started.run_id):
        assert not is_gone(instance, started)
    assert not is_gone(instance, started), "what ends in good order says the rest itself"
    with pytest.raises(RuntimeError), alive(instance, started.run_id):
        raise RuntimeError
    assert not is_gone(instance, started), "so does what fails"
    left_by_a_kill(instance, started)
    assert is_gone(instance, started)
    with alive(instance, started.run_id):
        assert not is_gone(instance, started), "it was resumed"


def test_a_run_that_has_ended_meanwhile_is_not_gone(instance, started):
    left_by_a_kill(instance, started)
    instance.report_run_canceled(started)
    assert started.status == S.STARTED and not is_gone(instance, started)


@pytest.mark.parametrize(
    ("here", "gone"),
    [
        ({"boot": "another"}, True),  # started again since
        ({"machine": "a container"}, sys.platform == "linux"),
        ({"machine": "another", "boot": "another"}, False),  # a lock of another machine's may look free from here
        ({"machine": "another", "boot": ""}, False),
    ],
)
def test_of_another_machine_nothing_is_concluded(instance, started, here, gone):
    left_by_a_kill(instance, started, **here)
    assert is_gone(instance, started) == gone


@pytest.mark.parametrize("text", ["", "no json", "[]"])
def test_nor_from_a_file_that_says_nothing(instance, started, text):
    left_by_a_kill(instance, started)
    file_of(instance, started).write_text(text)
    assert not is_gone(instance, started)


def test_of_several_processes_one_at_work_is_enough(instance, started, monkeypatch):
    left_by_a_kill(instance, started)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with alive(instance, started.run_id):
        assert not is_gone(instance, started)
    assert is_gone(instance, started)


def test_where_no_sign_can_be_kept_a_run_goes_on(instance, started, monkeypatch):
    monkeypatch.setattr(signs, "_folder", lambda *_: Path("/proc/nowhere"))
    with alive(instance, started.run_id):
        assert not is_gone(instance, started)


def test_a_sign_that_cannot_be_taken_away_neither_fails_the_run_nor_makes_it_look_dead(instance, started, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError

    with monkeypatch.context() as patch, alive(instance, started.run_id):
        patch.setattr(Path, "unlink", refuse)
    assert file_of(instance, started) and not is_gone(instance, started)


def test_the_daemon_is_told_by_the_launcher_of_the_shipped_settings(instance, started):
    from dagster._core.launcher.base import WorkerStatus

    settings = yaml.safe_load((ROOT / "pip_dagster/scaffold/templates/dagster.yaml").read_text())
    assert settings["run_monitoring"]["enabled"] and instance.run_launcher.supports_check_run_worker_health
    assert isinstance(instance.run_launcher, dg.DefaultRunLauncher)
    with alive(instance, started.run_id):
        assert instance.run_launcher.check_run_worker_health(started).status == WorkerStatus.RUNNING
    left_by_a_kill(instance, started)
    assert instance.run_launcher.check_run_worker_health(started).status == WorkerStatus.FAILED


@pytest.mark.slow
@pytest.mark.slice
def test_a_killed_run_that_nobody_reported_is_ended_by_a_look_and_tried_again(scored, instance):
    """As after a power cut: no code server is left that would say so."""
    scored.declare(partitions={"end": "2024-03-05"}, reruns={"back_off": "0 minutes"})
    scored.source("DELETE FROM raw.orders WHERE order_id = 60")
    definitions = build_definitions(scored.pipeline())
    sensor, repository = definitions.resolve_sensor_def("orders_source_changes"), definitions.get_repository_def()

    def look():
        return sensor.evaluate_tick(dg.build_sensor_context(instance=instance, repository_def=repository))

    [first] = look().run_requests
    tags = dict(first.tags) | {"dagster/partition": SECOND, "dagster/run_key": first.run_key}
    worker = scored.python(
        f"""
        import dagster as dg, os, time
        import pip_dagster.orchestration.assets as assets
        from acme.definitions import defs

        def materialize(*_, **__):
            os.write(1, b"\\nin its step\\n")  # at once: Dagster logs to the same pipe
            time.sleep(600)

        assets.materialize = materialize
        with dg.DagsterInstance.get() as instance:
            job = defs().resolve_job_def("orders_job")
            job.execute_in_process(instance=instance, partition_key="{SECOND}", tags={tags!r})
        """
    )
    try:
        assert "in its step\n" in iter(worker.stdout.readline, "")
        assert "1 stale partition in runs" in look().skip_message
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    assert "ended without building it; requested again from" in look().skip_message, "its end is after the look began"
    [again] = look().run_requests
    assert again.run_key == first.run_key.removesuffix("-1") + "-2"
    [run] = instance.get_runs()
    assert run.status == S.FAILURE
    events = [each.event_log_entry.dagster_event for each in instance.get_records_for_run(run.run_id).records]
    assert any(event and event.message == signs.GONE for event in events)


def test_a_run_leaves_no_sign_behind(scored, instance):
    definitions = build_definitions(scored.pipeline())
    result = definitions.resolve_job_def("orders_job").execute_in_process(instance=instance, partition_key=SECOND)
    assert result.success and not list(Path(instance.storage_directory()).rglob("*.alive"))
