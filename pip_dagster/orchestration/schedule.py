"""The declared schedule: at each tick the partitions that just closed, and those that missed ticks would have run."""

from datetime import UTC, datetime

import dagster as dg

from pip_dagster.declaration.automation import Schedule
from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.ranges import contiguous
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.closed import Closed, requested_at
from pip_dagster.orchestration.keys import predictions_key
from pip_dagster.orchestration.partitions import partitions_of
from pip_dagster.orchestration.publications import complete
from pip_dagster.orchestration.runs import REASON, covered, run_request

_MOST_NEW = 1000  # partitions that may close between two ticks: a month of hours has 744


def pipeline_schedule(
    pipeline: Pipeline, declared: Schedule, job: object, partitions: dg.TimeWindowPartitionsDefinition
) -> dg.ScheduleDefinition:
    """A schedule in the declared time zone or the partitions'; unless declared `running`, start it in the UI."""
    spec = pipeline.spec
    name = f"{spec.name}_schedule"
    zone = declared.time_zone or spec.partitions.time_zone
    behind = f", and up to {declared.catch_up} missed ones before them" if declared.catch_up else ""

    def closed_partitions(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        complete(context, pipeline.project)
        tick = context.scheduled_execution_time.astimezone(UTC)
        previous = previous_tick(declared.cron, zone, tick)
        closed = closed_at(partitions, tick, previous, declared.catch_up)
        if not closed:
            return dg.SkipReason(
                f"{spec.name} has no partition yet at {tick}: its grid starts {spec.partitions.start}."
            )
        newest = closed[-1]
        # Without an end the newest partition is always recent; past the end it would stay the last one.
        length = newest.partition.end - newest.partition.start
        ends = spec.partitions.end
        over = ends is not None and newest.partition.end_local >= ends and tick >= newest.at + length
        wanted = requested_at(
            closed,
            previous,
            catch_up=declared.catch_up,
            requested=_requested(context, name, partitions, closed),
            built=context.instance.get_materialized_partitions(predictions_key(spec)) if declared.catch_up else (),
            over=over,
        )
        if not wanted:
            return dg.SkipReason(
                f"The partitions of {spec.name} end on {spec.partitions.end:%Y-%m-%d}, before {tick:%Y-%m-%d}. Build "
                "past partitions with a backfill."
                if over
                else f"A run of every partition of {spec.name} that closed up to {tick} has been requested."
            )
        return _requests(pipeline, wanted, tick, {each.partition.key for each in closed if each.at <= previous})

    try:
        return dg.schedule(
            name=name,
            cron_schedule=declared.cron,
            execution_timezone=zone,
            job=job,  # type: ignore[arg-type]
            description=f"Score the partitions of {spec.name} that just closed{behind}.",
            default_status=dg.DefaultScheduleStatus(declared.status.upper()),
        )(closed_partitions)
    except dg.DagsterInvalidDefinitionError as error:
        raise DeclarationError(
            f"Pipeline {spec.name}: schedule {declared.cron!r} never ticks; expected minute (0-59), hour (0-23), "
            "day (1-31), month (1-12) and weekday (0-6 from Sunday), on days that exist, such as '0 6 * * *'."
        ) from error


def _requests(pipeline: Pipeline, wanted: list[Partition], tick: datetime, older: set[str]) -> list[dg.RunRequest]:
    """A run for each contiguous range."""
    spec = pipeline.spec
    requests = []
    for of_range in contiguous(wanted, at_most=spec.partitions.max_per_run):
        late = sum(partition.key in older for partition in of_range)
        counts = ((len(of_range) - late, "just closed"), (late, "missed or rescored"))
        requests.append(
            run_request(
                of_range,
                run_key=f"{spec.name} {of_range[0].key} {tick.isoformat()}",
                tags={REASON: ", ".join(f"{n} {what}" for n, what in counts if n)},
            )
        )
    return requests


def previous_tick(cron: str, zone: str, tick: datetime) -> datetime:
    """The tick before this one by the cron expression, whether or not it was evaluated."""
    ticks = dg.TimeWindowPartitionsDefinition(start="1970-01-01", fmt="%Y-%m-%d", cron_schedule=cron, timezone=zone)
    with dg.partition_loading_context(effective_dt=tick):
        window = ticks.get_last_partition_window()
    return window.start.astimezone(UTC) if window else datetime(1970, 1, 1, tzinfo=UTC)


def closed_at(
    definition: dg.TimeWindowPartitionsDefinition, tick: datetime, previous: datetime, catch_up: int
) -> list[Closed]:
    """The partitions that had closed at `tick`, in order: those since `previous`, and `catch_up` before them.

    At least the newest one, if there is any.
    """
    with dg.partition_loading_context(effective_dt=tick):
        window = definition.get_last_partition_window()
    found: list[Closed] = []
    older = 0
    while window and len(found) < _MOST_NEW + catch_up and older <= catch_up:
        at = _available(definition, window)
        older += at <= previous
        found.append(Closed(_partition(definition, window), at))
        window = definition.get_prev_partition_window(window.start)
    return found[::-1]


def _available(definition: dg.TimeWindowPartitionsDefinition, window: dg.TimeWindow) -> datetime:
    """When a partition closes: the end of the one that is `end_offset` before it."""
    for _ in range(definition.end_offset):
        window = definition.get_prev_partition_window(window.start, respect_bounds=False) or window
    for _ in range(-definition.end_offset):
        window = definition.get_next_partition_window(window.end, respect_bounds=False) or window
    return window.end.astimezone(UTC)


def _partition(definition: dg.TimeWindowPartitionsDefinition, window: dg.TimeWindow) -> Partition:
    [found] = partitions_of(definition, [definition.get_partition_key_for_timestamp(window.start.timestamp())])
    return found


def _requested(
    context: dg.ScheduleEvaluationContext,
    name: str,
    definition: dg.TimeWindowPartitionsDefinition,
    closed: list[Closed],
) -> set[str]:
    """The partitions that earlier ticks of this schedule requested.

    Those of this tick are not included: if it was interrupted, Dagster finds its runs by their run keys.
    """
    scheduled = "dagster/scheduled_execution_time"
    tick = context.scheduled_execution_time.astimezone(UTC)
    runs = context.instance.get_runs(
        dg.RunsFilter(tags={"dagster/schedule_name": name}, created_after=min(closed[0].at, tick))
    )
    found: set[str] = set()
    for run in runs:
        text = run.tags.get(scheduled)
        if text is None or datetime.fromisoformat(text) != tick:
            found |= covered(definition, run.tags, [each.partition for each in closed])
    return found
