"""The sensors that send alerts of failed runs and blocked partitions; alarms have one of their own."""

import json
import time
from collections.abc import Callable

import dagster as dg

from pip_dagster.alerts.alert import Alert, Kind, news, remembered
from pip_dagster.alerts.blocked import blocked_partitions
from pip_dagster.alerts.deliver import deliver
from pip_dagster.declaration.automation import Alerts
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.orchestration.keys import challengers_key, features_key, predictions_key
from pip_dagster.orchestration.publications import complete
from pip_dagster.plural import plural

_QUICK_SECONDS = 1.5

Standing = Callable[[], dict[str, tuple[str, str]]]  # partition → the ledger's entry, the reason


def run_failed(pipeline: Pipeline, alerts: Alerts) -> dg.SensorDefinition:
    """Alert of each failed run of this pipeline, whoever launched it."""
    spec = pipeline.spec
    mine = {features_key(spec), predictions_key(spec), challengers_key(spec)}

    @dg.run_failure_sensor(
        name=f"{spec.name}_run_failed",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus(alerts.status.upper()),
        description=f"Alert of runs of {spec.name} that failed.",
    )
    def alert_of_run(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        if run.job_name != f"{spec.name}_job" and not mine & set(run.asset_selection or ()):
            return dg.SkipReason(f"Run {run.run_id} is not one of {spec.name}.")
        failed, title = _what_failed(context, run)
        began = time.monotonic()
        deliver(alerts, Alert("run_failed", spec.name, title, failed, run.run_id), context.log.warning)
        took = time.monotonic() - began
        if took < _QUICK_SECONDS:
            return None  # on to the next failed run: Dagster passes up to five to a tick
        # Five slow deliveries exceed the time limit of a tick, and every later tick would repeat them.
        return dg.SkipReason(f"{title}. The alert took {took:.0f} s to deliver; the next tick continues.")

    return alert_of_run


def _what_failed(context: dg.RunFailureSensorContext, run: dg.DagsterRun) -> tuple[dict[str, str], str]:
    """The partitions that failed, if the step lists them, and a title."""
    for event in context.get_step_failure_events():
        data = event.step_failure_data.user_failure_data
        listed = data.metadata.get("failed_partitions") if data else None
        if listed and isinstance(listed.value, dict):
            return dict(
                listed.value
            ), f"Run {run.run_id[:8]} of {run.job_name}: {plural(len(listed.value), 'partition')} failed"
        if data and data.description:
            return {}, f"Run {run.run_id[:8]} of {run.job_name} failed: {data.description}"
    return {}, f"Run {run.run_id[:8]} of {run.job_name} failed: {context.failure_event.message}"


def standing_sensor(
    pipeline: Pipeline, alerts: Alerts, kind: Kind, what: str, standing: Standing
) -> dg.SensorDefinition:
    """Alert of each partition that `standing` names, once for each of its entries, and again when it returns."""

    @dg.sensor(
        name=f"{pipeline.spec.name}_{kind}",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus(alerts.status.upper()),
        description=f"Alert of partitions of {pipeline.spec.name} that are {what}.",
    )
    def alert_of_partitions(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        complete(context, pipeline.project)
        found = standing()
        fresh, reported = news({key: entry for key, (entry, _) in found.items()}, remembered(context.cursor) or {})
        if fresh:
            title = (
                f"{pipeline.spec.name}: {plural(len(fresh), 'partition')} {'are' if len(fresh) > 1 else 'is'} {what}"
            )
            alert = Alert(kind, pipeline.spec.name, title, {key: found[key][1] for key in fresh})
            deliver(alerts, alert, context.log.warning)
        context.update_cursor(json.dumps(reported))
        if fresh:
            return dg.SkipReason(f"Alerted of {', '.join(fresh[:10])}{' and more' if len(fresh) > 10 else ''}.")
        return dg.SkipReason(f"Nothing new: {plural(len(found), f'{what} partition')}.")

    return alert_of_partitions


def alert_sensors(pipeline: Pipeline) -> list[dg.SensorDefinition]:
    """The sensors for the alerts that the declaration, or else the project, configures."""
    alerts = pipeline.alerts
    if alerts is None:
        return []
    sensors = []
    if "run_failed" in alerts.events:
        sensors.append(run_failed(pipeline, alerts))
    if "partition_blocked" in alerts.events:

        def blocked() -> dict[str, tuple[str, str]]:
            return blocked_partitions(pipeline.project, pipeline.spec.name)

        sensors.append(standing_sensor(pipeline, alerts, "partition_blocked", "blocked", blocked))
    return sensors
