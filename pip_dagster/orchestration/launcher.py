"""Dagster's default run launcher, and it tells run monitoring of workers that are gone."""

import dagster as dg
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus

from pip_dagster.orchestration.alive import GONE, is_gone


class WatchedRunLauncher(dg.DefaultRunLauncher):
    """For `run_launcher` in dagster.yaml: the daemon then ends a run whose worker was killed with its code server.

    By itself Dagster asks the launchers of Celery, Kubernetes and Docker alone.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether `run_monitoring` asks."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Failed when its process is certainly gone; where that cannot be told, running."""
        if is_gone(self._instance, run):
            return CheckRunHealthResult(WorkerStatus.FAILED, GONE)
        return CheckRunHealthResult(WorkerStatus.RUNNING)
