"""The sensors that run a pipeline, and those that send alerts and lineage."""

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.orchestration.sensors.alarms import alarms_sensor
from pip_dagster.orchestration.sensors.alerts import alert_sensors
from pip_dagster.orchestration.sensors.labels import labels_arrived
from pip_dagster.orchestration.sensors.openlineage import openlineage_sensor
from pip_dagster.orchestration.sensors.reruns import model_promoted, source_changes


def pipeline_sensors(
    pipeline: Pipeline, job: object, partitions: dg.TimeWindowPartitionsDefinition
) -> list[dg.SensorDefinition]:
    """The sensors of a pipeline, stopped unless declared otherwise; `labels_arrived` where labels are declared."""
    labels = [labels_arrived(pipeline)] if pipeline.labels else []
    return [
        source_changes(pipeline, job, partitions),
        model_promoted(pipeline, job, partitions),
        *labels,
        *alert_sensors(pipeline),
        *alarms_sensor(pipeline),
        *openlineage_sensor(pipeline),
    ]
