"""A run that somebody ended with Ctrl-C was cancelled; Dagster by itself calls it failed."""

import signal

import dagster as dg

from pip_dagster.warehouse.interrupts import last_signal


def ask_to_cancel(context: dg.AssetExecutionContext) -> None:
    """Make an interrupted run end in CANCELED, as one does that was terminated in the UI.

    A SIGTERM may also come from a machine that is taken away. A run that would be retried or resumed then is left to
    fail, so that it is.
    """
    run = context.instance.get_run_by_id(context.run_id)
    if run is None or run.is_finished or run.status == dg.DagsterRunStatus.CANCELING:
        return
    instance = context.instance
    by_default = instance.run_retries_max_retries if instance.run_retries_enabled else 0
    retried = run.tags.get("dagster/max_retries", str(by_default)) != "0"
    if last_signal() == signal.SIGTERM and (retried or instance.run_will_resume(run.run_id)):
        return
    instance.report_run_canceling(run, message="Interrupted: what is committed stays, the rest is undone.")
