"""All of one pipeline's Dagster definitions."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.flow.result import PartitionResult
from pip_dagster.orchestration.assets import pipeline_assets
from pip_dagster.orchestration.checks import source_checks
from pip_dagster.orchestration.inputs import model_asset, source_assets
from pip_dagster.orchestration.keys import delivered_key, own_keys
from pip_dagster.orchestration.partitions import partitions_definition
from pip_dagster.orchestration.performance import performance_asset
from pip_dagster.orchestration.purged import purge_definitions
from pip_dagster.orchestration.report import report_definitions
from pip_dagster.orchestration.schedule import pipeline_schedule
from pip_dagster.orchestration.sensors import pipeline_sensors


def build_definitions(pipeline: Pipeline, observe: Callable[[PartitionResult], None] | None = None) -> dg.Definitions:
    """Assets, job, schedule and sensors of a pipeline.

    With `observe`, which is called with each committed partition, there is no sensor: one may name a job of the user's
    code location.
    """
    spec = pipeline.spec
    partitions = partitions_definition(spec.partitions)
    wanted = [*own_keys(spec), *([delivered_key(spec)] if spec.deliver else [])]
    job = dg.define_asset_job(
        f"{spec.name}_job",
        # The step reports its checks in any case. Those that are selected are planned, in a row for each partition.
        selection=dg.AssetSelection.assets(*wanted).without_checks(),
        description=f"Features and predictions of {spec.name} for one partition or a range.",
        # A process for the one step would cost ten seconds of imports without a benefit.
        executor_def=dg.in_process_executor,
    )
    measured = [performance_asset(pipeline, partitions)] if pipeline.evaluates else []
    own = [model_asset(pipeline), pipeline_assets(pipeline, partitions, observe), *measured]
    if spec.deliver:
        from pip_dagster.orchestration.delivered import delivered_asset

        own.append(delivered_asset(pipeline, partitions))
    built = dg.Definitions(
        assets=[*source_assets(pipeline), *own],
        asset_checks=source_checks(pipeline, partitions),
        jobs=[job],
        schedules=[pipeline_schedule(pipeline, spec.schedule, job, partitions)] if spec.schedule else [],
        sensors=[] if observe else pipeline_sensors(pipeline, job, partitions),
    )
    more = [report_definitions(pipeline, spec.monitoring)] if spec.monitoring else []
    more += [purge_definitions(pipeline)] if spec.privacy and spec.privacy.retention.content else []
    return dg.Definitions.merge(built, *more) if more else built
