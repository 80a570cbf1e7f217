"""Each tick completes the publications that a killed process left pending."""

import dagster as dg

from pip_dagster.declaration.project import Project
from pip_dagster.errors import PipelineError
from pip_dagster.plural import plural
from pip_dagster.quoted import said
from pip_dagster.warehouse.access import complete_publications

_WITHIN = 5.0  # seconds: what a tick may wait for the warehouse; the next one tries again


def complete(
    context: dg.SensorEvaluationContext | dg.ScheduleEvaluationContext, project: Project, *, within: float = _WITHIN
) -> int:
    """Publish what is pending; how many partitions. An error is logged and does not end the tick."""
    import duckdb

    try:
        count = complete_publications(project, within=within)
    except (PipelineError, duckdb.Error) as error:
        context.log.warning(f"Partitions that are not published yet stay pending: {said(error)}")
        return 0
    if count:
        context.log.info(f"{plural(count, 'partition')} that a killed process had stored and not published: published.")
    return count
