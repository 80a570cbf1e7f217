"""Report a run that a person ended with Ctrl-C as cancelled; Dagster by itself reports it as failed."""

import signal

import dagster as dg

from pip_dagster.warehouse.interrupts import last_signal


def request_cancellation(context: dg.AssetExecutionContext) -> None:
    """Have an interrupted run end in CANCELED, like a run that was terminated in the UI.

    A SIGTERM may also come from a machine that shuts down. Then a run that Dagster would retry or resume is left to
    fail, so that Dagster does so.
    """
    run = context.instance.get_run_by_id(context.run_id)
    if run is None or run.is_finished or run.status == dg.DagsterRunStatus.CANCELING:
        return
    instance = context.instance
    by_default = instance.run_retries_max_retries if instance.run_retries_enabled else 0
    retried = run.tags.get("dagster/max_retries", str(by_default)) != "0"
    if last_signal() == signal.SIGTERM and (retried or instance.run_will_resume(run.run_id)):
        return
    instance.report_run_canceling(run, message="Interrupted: committed partitions stay, the rest is rolled back.")
