"""The asset `<name>/purged` of a pipeline that declares `retention.content`: a purge, by a daily schedule."""

from typing import Any

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.orchestration.alive import alive
from pip_dagster.orchestration.failure import as_failure
from pip_dagster.orchestration.keys import predictions_key, purged_key
from pip_dagster.orchestration.links import docs
from pip_dagster.plural import plural
from pip_dagster.registry.store import whoami

_DAILY = "0 3 * * *"
_SHOWN = 100  # partitions


def purge_definitions(pipeline: Pipeline) -> dg.Definitions:
    """The asset, its job and its schedule, which runs where the pipeline's own does."""
    spec, own = pipeline.spec, pipeline.spec.schedule
    job = dg.define_asset_job(
        f"{spec.name}_purge_job",
        selection=dg.AssetSelection.assets(purged_key(spec)),
        description=f"Remove the contents of {spec.name} that are past their clock.",
        executor_def=dg.in_process_executor,
    )
    schedule = dg.ScheduleDefinition(
        name=f"{spec.name}_purge_schedule",
        cron_schedule=_DAILY,
        execution_timezone=(own.time_zone if own else None) or spec.partitions.time_zone,
        job=job,
        description=f"Remove the contents of {spec.name} that are past their clock.",
        default_status=dg.DefaultScheduleStatus((own.status if own else "stopped").upper()),
    )
    return dg.Definitions(assets=[_asset(pipeline)], jobs=[job], schedules=[schedule])


def _asset(pipeline: Pipeline) -> dg.AssetsDefinition:
    spec = pipeline.spec
    assert spec.privacy and spec.privacy.retention.content
    days = spec.privacy.retention.content.days

    @dg.asset(
        key=purged_key(spec),
        deps=[predictions_key(spec)],
        group_name=spec.name,
        owners=list(spec.owners),
        kinds={"duckdb"},
        metadata=docs(pipeline, "privacy"),
        description=f"The contents of partitions that ended {plural(days, 'day')} ago or earlier are removed; their "
        "evidence stays. Also by `pip-dagster purge`.",
    )
    def purged(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        from pip_dagster.erasure.purge import purge
        from pip_dagster.orchestration.erased_events import DagsterPlace

        with alive(context.instance, context.run.run_id), as_failure():
            done = purge(
                *(pipeline.project, [pipeline]),
                actor=context.run.tags.get("user") or whoami(),
                others=[DagsterPlace(context.instance)],
                progress=context.log.info,
            )
        if done is None:
            return dg.MaterializeResult(metadata={"partitions": 0, "rows": 0})
        of = done.partitions.get(spec.name, {})
        keys = ", ".join([*of][:_SHOWN]) + (", …" if len(of) > _SHOWN else "")
        return dg.MaterializeResult(
            metadata={
                "purge": done.purge_id,
                "partitions": len(of),
                "rows": sum(of.values()),
                "which": keys,
                "certificate": f"pip-dagster certificate {done.purge_id}",
            }
        )

    return purged
