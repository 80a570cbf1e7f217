"""The sensor that sends new lineage: outside of runs, so that a receiver that is away delays none."""

from __future__ import annotations

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.errors import PipelineError
from pip_dagster.plural import plural
from pip_dagster.quoted import said
from pip_dagster.warehouse.lock import waiting_at_most

_LOCK_DEADLINE = 2.0


def openlineage_sensor(pipeline: Pipeline) -> list[dg.SensorDefinition]:
    """It exists where the project's setting `openlineage` names a destination, and is on."""
    if not pipeline.project.openlineage:
        return []

    @dg.sensor(
        name=f"{pipeline.spec.name}_openlineage",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Send the new lineage of {pipeline.spec.name} to the setting `openlineage`.",
    )
    def openlineage(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        import duckdb

        from pip_dagster.openlineage.emit import emit_new

        try:
            with waiting_at_most(_LOCK_DEADLINE):
                done = emit_new(pipeline)
        except (PipelineError, duckdb.Error) as error:
            return dg.SkipReason(f"Skipped: {said(error)} Will retry on the next tick.")
        if done.fault:
            context.log.warning(done.fault)
            return dg.SkipReason(f"{plural(done.left, 'ledger row')} left. {done.fault}")
        left = f"; {done.left:,} left" if done.left else ""
        return dg.SkipReason(f"{plural(done.sent, 'ledger row')} sent{left}." if done.sent else "Nothing new.")

    return [openlineage]
