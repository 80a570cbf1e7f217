"""Dagster's default run launcher, which also reports to run monitoring the workers that are gone."""

import dagster as dg

from pip_dagster.orchestration.alive import GONE, is_gone
from pip_dagster.orchestration.dagster_private import CheckRunHealthResult, WorkerStatus, instance_of


class WatchedRunLauncher(dg.DefaultRunLauncher):
    """For `run_launcher` in dagster.yaml: the daemon then ends a run whose worker was killed with its code server.

    By default Dagster checks only the workers of the launchers for Celery, Kubernetes and Docker.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether `run_monitoring` checks the workers."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Failed if the process is certainly gone, else running."""
        if is_gone(instance_of(self), run):
            return CheckRunHealthResult(WorkerStatus.FAILED, GONE)
        return CheckRunHealthResult(WorkerStatus.RUNNING)
