"""What makes a pipeline run by itself, and tell of what went wrong."""

import dagster as dg

from pip_dagster.pipeline import Pipeline


def pipeline_sensors(
    pipeline: Pipeline, job: object, partitions: dg.TimeWindowPartitionsDefinition
) -> list[dg.SensorDefinition]:
    return []
