"""Dagster's run launcher for Celery, which also reports to run monitoring the runs that no worker executes any more."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from pip_dagster.orchestration.alive import GONE, is_gone
from pip_dagster.orchestration.dagster_private import CheckRunHealthResult, WorkerStatus, instance_of

_log = logging.getLogger(__name__)

# How long Celery collects the workers' answers, and how long they are used: one question serves all runs of a check.
_ANSWERED_WITHIN = 2.0
_FRESH = 10.0


class WatchedCeleryRunLauncher(CeleryRunLauncher):
    """For `run_launcher` in dagster.yaml: the daemon then ends a run that no worker executes.

    Celery's own record is no proof. Of a worker that was killed it says STARTED for ever; of a run whose failure could
    not be stored because Postgres was away, SUCCESS; and of one whose record is lost, nothing, upon which Dagster would
    end a healthy run. So the workers are asked what they execute.
    """

    def __init__(self, worker_gone_after_seconds: int = 120, **options: Any) -> None:
        super().__init__(**options)
        self._gone_after = worker_gone_after_seconds
        self._missing: dict[str, float] = {}  # run → since when no worker has named it
        self._answer: tuple[float, str] = (float("-inf"), "")

    @classmethod
    def config_type(cls) -> Any:
        """The launcher's options in dagster.yaml."""
        described = (
            "After how many seconds, in which no worker says that it executes a run, the run has failed. Workers "
            "need up to half a minute to find a restarted broker again."
        )
        option = dg.Field(int, is_required=False, default_value=120, description=described)
        options: Any = super().config_type()
        return options | {"worker_gone_after_seconds": option}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> WatchedCeleryRunLauncher:
        """The launcher that dagster.yaml describes."""
        return cls(inst_data=inst_data, **config_value)

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Failed if Celery says so, or if no worker has executed the run for a while; else running."""
        task, instance = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG), instance_of(self)
        if task is None and instance.get_run_stats(run.run_id).launch_time is None:
            # No launcher started it: `dagster asset materialize` executes a run by itself.
            gone = is_gone(instance, run)
            return CheckRunHealthResult(WorkerStatus.FAILED if gone else WorkerStatus.RUNNING, GONE if gone else None)
        try:
            failed = task is not None and self.celery.AsyncResult(task).state == "FAILURE"
            is_executed = not failed and run.run_id in self._executed()
        except Exception as error:  # each broker's client has its own errors
            _log.warning("Celery's broker or result store does not answer; runs count as running: %s", error)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if failed:
            return CheckRunHealthResult(WorkerStatus.FAILED, "The Celery worker's process ended during the run.")
        if is_executed:
            self._missing.pop(run.run_id, None)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        missing = time.monotonic() - self._missing.setdefault(run.run_id, time.monotonic())
        if missing < self._gone_after:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        del self._missing[run.run_id]
        return CheckRunHealthResult(
            WorkerStatus.FAILED,
            f"No Celery worker has executed the run for {missing:.0f} s: its worker was killed or lost its machine.",
        )

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """What Celery knows of the run's task; None where it has none."""
        has_task = DAGSTER_CELERY_TASK_ID_TAG in run.tags
        return super().get_run_worker_debug_info(run, include_container_logs) if has_task else None

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run's worker process; False where Celery does not execute it."""
        run = instance_of(self).get_run_by_id(run_id)
        return bool(run and DAGSTER_CELERY_TASK_ID_TAG in run.tags and super().terminate(run_id))

    def _executed(self) -> str:
        """What all workers say that they execute; each task's arguments contain its run."""
        asked, answer = self._answer
        if time.monotonic() - asked > _FRESH:
            answer = str(self.celery.control.inspect(timeout=_ANSWERED_WITHIN).active())
            self._answer = (time.monotonic(), answer)
        return answer
