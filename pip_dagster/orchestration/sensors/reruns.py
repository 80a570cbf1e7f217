"""The sensors that carry out the plan: each tick computes it and requests runs for the stale partitions."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from pip_dagster.declaration.automation import Sensor
from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.reruns import Reach
from pip_dagster.errors import SourceAwayError, WarehouseLockedError
from pip_dagster.flow import rerun_requests as core
from pip_dagster.orchestration.failure import quoting_nothing
from pip_dagster.orchestration.in_flight import CONTENT, earlier_runs, in_flight
from pip_dagster.orchestration.publications import complete
from pip_dagster.orchestration.runs import REASON, run_request
from pip_dagster.plural import plural
from pip_dagster.warehouse.lock import waiting_at_most

if TYPE_CHECKING:
    from pip_dagster.ledger.plan_values import Kind

# Dagster ends a tick after 60 s. So many partitions that differ are judged in one, which takes a few; the next goes on.
_AT_ONCE = 20_000


@dataclass(frozen=True)
class _Reruns:
    """What a sensor reruns: the partitions that are stale for `kinds`, and never built ones as far as `missing`."""

    name: str
    declared: Sensor
    kinds: Collection[Kind]
    missing: Reach
    description: str


def source_changes(
    pipeline: Pipeline, job: object, definition: dg.TimeWindowPartitionsDefinition
) -> dg.SensorDefinition:
    """Requests runs for the partitions that are stale for any reason but a promotion alone."""
    declared = pipeline.spec.sensors.source_changes
    description = (
        f"Rerun partitions of {pipeline.spec.name} whose sources have new, late, corrected or deleted rows, that were "
        "provisional, whose SQL or declaration changed, or that failed. Partitions that were never built: "
        f"{_text(declared.missing)}, by sensors.source_changes.missing."
    )
    reruns = _Reruns("source_changes", declared, core.SOURCE_KINDS, declared.missing, description)
    return _rerun_sensor(pipeline, job, definition, reruns)


def model_promoted(
    pipeline: Pipeline, job: object, definition: dg.TimeWindowPartitionsDefinition
) -> dg.SensorDefinition:
    """Requests runs for the partitions that are stale by `reruns.promotion`."""
    spec = pipeline.spec
    description = (
        f"Rescore partitions of {spec.name} when {spec.scoring.alias} moves. By reruns.promotion: "
        f"{_text(spec.reruns.promotion)}."
    )
    reruns = _Reruns("model_promoted", spec.sensors.model_promoted, core.PROMOTION_KINDS, "all", description)
    return _rerun_sensor(pipeline, job, definition, reruns)


def _text(reach: Reach) -> str:
    if isinstance(reach, str):
        return reach
    return f"the last {reach.last}" if reach.last is not None else f"those since {reach.since}"


def _rerun_sensor(
    pipeline: Pipeline, job: object, definition: dg.TimeWindowPartitionsDefinition, reruns: _Reruns
) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{pipeline.spec.name}_{reruns.name}",
        job=job,  # type: ignore[arg-type]
        minimum_interval_seconds=int(reruns.declared.interval.total_seconds()),
        default_status=dg.DefaultSensorStatus(reruns.declared.status.upper()),
        description=reruns.description,
    )
    def evaluate(context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        return _evaluate(context, pipeline, definition, reruns)

    return evaluate


@quoting_nothing()
def _evaluate(
    context: dg.SensorEvaluationContext,
    pipeline: Pipeline,
    definition: dg.TimeWindowPartitionsDefinition,
    reruns: _Reruns,
) -> list[dg.RunRequest] | dg.SkipReason:
    from pip_dagster.flow.plan import begin_of, make_plan
    from pip_dagster.flow.unchanged import reads_tables_only, state_of
    from pip_dagster.ledger.plan_values import PlanPart

    spec, declared, now = pipeline.spec, reruns.declared, datetime.now(UTC)
    grid = closed_partitions(spec.partitions, now)
    state = state_of(pipeline, grid)
    if state and (text := _text_of(context.cursor, state, now)):
        return dg.SkipReason(text)
    after = _goes_on_from(context.cursor)
    # Those never built that the sensor leaves to a backfill are only counted.
    reached = begin_of(grid, reruns.missing) if "missing" in reruns.kinds else None
    part = PlanPart(_AT_ONCE, after, reached or datetime.max.replace(tzinfo=UTC))
    try:
        with waiting_at_most(declared.lock_deadline):
            plan = make_plan(pipeline, grid, now=now, part=part)
    except (SourceAwayError, WarehouseLockedError) as error:
        return dg.SkipReason(f"Skipped: {error} Will retry on the next tick.")
    published = complete(context, pipeline.project, within=declared.lock_deadline) if plan.pending else 0
    wanted = core.wanted_by(plan.stale, reruns.kinds, grid, reruns.missing)
    graph = context.repository_def.asset_graph if context.repository_def else None
    busy = in_flight(context.instance, spec, definition, [each.partition for each in wanted], graph)
    size = min(declared.max_partitions, spec.partitions.max_per_run or declared.max_partitions)
    requested: list[dg.RunRequest] = []
    on_hold = {
        each.partition.key: each.reasons[0].text for each in plan.on_hold if each.reasons[0].kind in reruns.kinds
    }
    waiting = 0
    for request in core.requests([each for each in wanted if each.partition.key not in busy], at_most=size):
        if len(requested) == declared.max_runs:
            waiting += 1
            continue
        attempt = core.next_attempt(earlier_runs(context.instance, request.content), spec.reruns, now)
        if isinstance(attempt, str):
            on_hold[request.partitions[0].key] = attempt
            continue
        tags = {CONTENT: request.content, REASON: request.reasons}
        requested.append(run_request(request.partitions, run_key=request.run_key(attempt), tags=tags))
        context.log.info(f"{request.partitions[0].key} to {request.partitions[-1].key}: {request.reasons}")
    if requested:
        return requested
    mine = {each.partition.key for each in wanted}
    never = plan.never_built
    never += sum(each.partition.key not in mine and each.reasons[0].kind == "missing" for each in plan.stale)
    done = f"{plural(published, 'pending partition')} published. " if published else ""
    unasked = never if "missing" in reruns.kinds else 0
    text = done + core.skipped(on_hold, busy, waiting, unasked, plan.current)
    if plan.more_from or after:
        context.update_cursor(json.dumps({"from": plan.more_from.isoformat()}) if plan.more_from else "")
        at = f"{plan.more_from:%Y-%m-%d %H:%M %Z}" if plan.more_from else "the first"
        return dg.SkipReason(
            f"{text} Of many partitions that differ, a part was judged; the next tick goes on from {at}."
        )
    if state and not wanted and not plan.pending and reads_tables_only(pipeline):
        until = plan.until.isoformat() if plan.until else None
        context.update_cursor(json.dumps({"state": state, "until": until, "text": text}))
    return dg.SkipReason(text)


def _goes_on_from(cursor: str | None) -> datetime | None:
    """The start of the partition from which a tick goes on where the one before ended; None: from the first."""
    start = json.loads(cursor).get("from") if cursor else None
    return datetime.fromisoformat(start) if start else None


def _text_of(cursor: str | None, state: str, now: datetime) -> str | None:
    """Why nothing was requested when everything was in this state; None if time may have changed that."""
    found = json.loads(cursor) if cursor else {}
    if found.get("state") != state or (found["until"] and now >= datetime.fromisoformat(found["until"])):
        return None
    return str(found["text"])
