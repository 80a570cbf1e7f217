"""The declared schedule: at each tick the newest partition that can be made."""

import dagster as dg

from pip_dagster.pipeline import Pipeline


def pipeline_schedule(
    pipeline: Pipeline, cron: str, job: object, partitions: dg.TimeWindowPartitionsDefinition
) -> dg.ScheduleDefinition:
    """A schedule in the partitions' time zone; it starts stopped, as Dagster's do, and is turned on in the UI."""
    spec = pipeline.spec

    @dg.schedule(
        name=f"{spec.name}_schedule",
        cron_schedule=cron,
        execution_timezone=spec.partitions.time_zone,
        job=job,  # type: ignore[arg-type]
        description=f"Score the newest partition of {spec.name}.",
    )
    def newest_partition(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time
        with dg.partition_loading_context(effective_dt=tick):
            window = partitions.get_last_partition_window()
            key = partitions.get_last_partition_key()
        if window is None or key is None:
            return dg.SkipReason(
                f"{spec.name} has no partition yet at {tick}: its grid starts {spec.partitions.start}."
            )
        # Without an end the newest partition is always recent; past the end it would be the last one for ever.
        last_due = window.end + (1 - spec.partitions.end_offset) * (window.end - window.start)
        if spec.partitions.end and tick >= last_due:
            return dg.SkipReason(f"The partitions of {spec.name} end on {spec.partitions.end}; {tick} is past them.")
        return dg.RunRequest(run_key=f"{spec.name} {key} {tick.isoformat()}", partition_key=key)

    return newest_partition
