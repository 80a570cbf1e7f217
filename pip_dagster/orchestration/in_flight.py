"""Requests that Dagster already has: queued or running runs, unfinished backfills, earlier runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import dagster as dg

from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.spec import PipelineSpec
from pip_dagster.flow.rerun_requests import Earlier
from pip_dagster.orchestration.alive import end_if_gone
from pip_dagster.orchestration.dagster_private import backfill_targets, requested_backfills
from pip_dagster.orchestration.keys import features_key, predictions_key
from pip_dagster.orchestration.runs import UNFINISHED, covered

# The prefix hides it in the UI, where only the reason is useful.
CONTENT = ".dagster/pip_dagster_wanted"

_OUTCOMES: dict[dg.DagsterRunStatus, Literal["success", "failure", "canceled"]] = {
    dg.DagsterRunStatus.SUCCESS: "success",
    dg.DagsterRunStatus.FAILURE: "failure",
    dg.DagsterRunStatus.CANCELED: "canceled",
}


def in_flight(
    instance: dg.DagsterInstance,
    spec: PipelineSpec,
    definition: dg.TimeWindowPartitionsDefinition,
    candidates: Sequence[Partition],
    asset_graph: Any,
) -> set[str]:
    """Which of the candidates a queued or running run, or an unfinished backfill, is about.

    A run whose process is gone is ended here, so that it counts as failed.
    """
    mine = {features_key(spec), predictions_key(spec)}
    found: set[str] = set()
    if not candidates:
        return found
    for run in instance.get_runs(dg.RunsFilter(statuses=list(UNFINISHED))):
        if run.job_name == f"{spec.name}_job" or mine & set(run.asset_selection or ()):
            about = covered(definition, run.tags, candidates)
            if about and not end_if_gone(instance, run):
                found |= about
    for backfill in requested_backfills(instance):
        if targeted := mine & set(backfill.asset_selection or ()):
            found |= backfill_targets(backfill, targeted, asset_graph, [each.key for each in candidates])
    return found


def earlier_runs(instance: dg.DagsterInstance, content: str) -> list[Earlier]:
    """The finished runs of the same request."""
    records = instance.get_run_records(dg.RunsFilter(tags={CONTENT: content}))
    return [
        Earlier(
            _OUTCOMES[record.dagster_run.status],
            datetime.fromtimestamp(record.end_time, UTC) if record.end_time else record.update_timestamp,
        )
        for record in records
        if record.dagster_run.status in _OUTCOMES
    ]
