"""The sensor of alarms: it judges what no run has judged, sends what is due, and starts a declared retraining."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.errors import PipelineError
from pip_dagster.monitoring.watch import newest_live, watch_clock, watch_scored
from pip_dagster.orchestration.failure import quoting_nothing
from pip_dagster.orchestration.publications import complete
from pip_dagster.warehouse.lock import waiting_at_most

if TYPE_CHECKING:
    from pip_dagster.ledger.retrains import RetrainEntry

RETRAIN_TAG = "pip_dagster/retrain"
_LOCK_DEADLINE = 2.0
_ENDED = {
    dg.DagsterRunStatus.SUCCESS: "succeeded",
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "failed",
}


def alarms_sensor(pipeline: Pipeline) -> list[dg.SensorDefinition]:
    """It exists where monitoring is declared, and is on where alerts or a retraining are."""
    monitoring, alerts = pipeline.spec.monitoring, pipeline.alerts
    if not monitoring:
        return []
    hook = monitoring.retrain
    running = hook is not None or (alerts is not None and alerts.status == "running")
    sends = "Send the alarms of" if alerts else "Judge the alarms of"
    starts = f", and start the {hook.target} while one holds" if hook else ""

    @dg.sensor(
        name=f"{pipeline.spec.name}_alarms",
        job_name=hook.job if hook else None,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        description=f"{sends} {pipeline.spec.name}{starts}.",
    )
    def alarms(context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        complete(context, pipeline.project)
        with waiting_at_most(_LOCK_DEADLINE):
            return _evaluate(context, pipeline)

    return [alarms]


@quoting_nothing()
def _evaluate(context: dg.SensorEvaluationContext, pipeline: Pipeline) -> list[dg.RunRequest] | dg.SkipReason:
    from pip_dagster.alerts.notify import notify
    from pip_dagster.alerts.retrain import retrain

    said: list[str] = []
    with _reported(context, said):
        newest = newest_live(pipeline)
        if newest and newest != context.cursor:
            found = watch_scored(pipeline, None)
            said += [f"Not judged: {event}: {why}" for event, why in found.faults.items()]
            if not found.busy:  # else the next tick judges it
                context.update_cursor(newest)
        watch_clock(pipeline)
    with _reported(context, said):
        done = notify(pipeline, log=context.log.warning)
        said += [f"Sent: {title}." for title in done.sent]
        if done.failed or done.left:
            said.append(f"Not sent yet: {len(done.failed) + done.left}; the next tick tries again.")
    jobs: list[RetrainEntry] = []
    with _reported(context, said):
        started = retrain(pipeline, of_run=_of_run(context.instance))
        said += started.said
        jobs = started.jobs
        if started.held and not jobs:
            said.append(f"No retraining: {started.held}.")
    for text in said:
        context.log.info(text)
    if jobs:
        return [
            dg.RunRequest(
                run_key=each.retrain_id,
                tags={RETRAIN_TAG: each.retrain_id, "pip_dagster/alarms": ", ".join(each.alarm_ids)},
            )
            for each in jobs
        ]
    return dg.SkipReason(" ".join(said) or "Nothing new.")


@contextmanager
def _reported(context: dg.SensorEvaluationContext, said: list[str]) -> Iterator[None]:
    """What fails does not keep the rest of the tick from its work; the next tick tries it again."""
    try:
        yield
    except PipelineError as error:
        context.log.warning(str(error))
        said.append(f"Skipped: {error} Will retry on the next tick.")


def _of_run(instance: dg.DagsterInstance) -> Callable[[str], tuple[str, str] | None]:
    def of_run(retrain_id: str) -> tuple[str, str] | None:
        runs = instance.get_runs(dg.RunsFilter(tags={RETRAIN_TAG: retrain_id}), limit=1)
        return (_ENDED.get(runs[0].status, "started"), runs[0].run_id) if runs else None

    return of_run
