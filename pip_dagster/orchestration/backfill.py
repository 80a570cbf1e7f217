"""Chunks of a backfill as Dagster runs in this process: the UI shows the runs and their partitions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg

from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.errors import BackfillError
from pip_dagster.flow.backfill import RunChunk
from pip_dagster.flow.result import PartitionResult
from pip_dagster.ledger.backfills import Backfill, finished_by_run, finished_keys
from pip_dagster.ledger.record import scorings_of
from pip_dagster.orchestration.alive import is_gone
from pip_dagster.orchestration.dagster_private import FinishedRuns, output_copied_quietly, record_backfill
from pip_dagster.orchestration.definitions import build_definitions
from pip_dagster.orchestration.keys import own_keys, predictions_key
from pip_dagster.orchestration.metadata import predictions_metadata
from pip_dagster.orchestration.options import (
    AS_KNOWN_TAG,
    BACKFILL_TAG,
    FEWER_ROWS_TAG,
    PINNED_TAG,
    VERSION_TAG,
    WHY_TAG,
)
from pip_dagster.orchestration.runs import UNFINISHED, range_tags
from pip_dagster.plural import plural
from pip_dagster.warehouse.access import reading, writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.interrupts import raise_if_interrupted

LOG = logging.getLogger("pip_dagster")

GROUP_TAG = "dagster/backfill"
# Of the time between two records of a backfill's progress, one is at most a part in so many.
_SHARE = 20


def run_in_dagster(
    pipeline: Pipeline,
    instance: dg.DagsterInstance,
    observe: Callable[[PartitionResult], None],
    *,
    allow_fewer_rows: bool = False,
) -> RunChunk:
    """Runs each chunk as one Dagster run; `observe` is called with a partition as soon as it is committed."""
    allowed = {FEWER_ROWS_TAG: "true"} if allow_fewer_rows else {}
    results: list[PartitionResult] = []

    def note(result: PartitionResult) -> None:
        results.append(result)
        observe(result)

    definitions = build_definitions(pipeline, observe=note)
    job, done = definitions.resolve_job_def(f"{pipeline.spec.name}_job"), set[str]()

    due = 0.0

    def run(backfill: Backfill, chunk: Sequence[Partition]) -> Iterator[PartitionResult]:
        nonlocal due
        results.clear()
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        logging.getLogger("dagster").setLevel(logging.CRITICAL)
        try:
            with output_copied_quietly():
                result = job.execute_in_process(
                    instance=instance,
                    tags=tags_of(backfill, chunk) | allowed,
                    run_config=quiet,
                    raise_on_error=False,
                )
        except KeyboardInterrupt:  # outside its step: sensors would wait for a run that never ends
            end_runs(pipeline, instance, backfill.backfill_id, cancelled=True)
            raise
        done.update(each.partition.key for each in results if not each.error)
        status = result.dagster_run.status
        if status == dg.DagsterRunStatus.CANCELED or _interrupted(result):
            raise KeyboardInterrupt
        if not result.success and len(results) < len(chunk):
            raise BackfillError(_failure(result))
        # Not sooner: an interrupted step may still have the warehouse's lock.
        instance.add_run_tags(result.run_id, {GROUP_TAG: _short(backfill)})
        is_last = chunk[-1].key == backfill.partition_keys[-1]
        if is_last or time.monotonic() >= due:
            began = time.monotonic()
            group(instance, definitions.resolve_asset_graph(), pipeline, backfill, done)
            due = time.monotonic() + _SHARE * (time.monotonic() - began)
        yield from results

    return run


def group(
    instance: dg.DagsterInstance, asset_graph: Any, pipeline: Pipeline, backfill: Backfill, done: set[str]
) -> None:
    """Show the runs of a backfill in the UI as one; `done`: the partitions that this process has built.

    Dagster stores all keys of the backfill each time.
    """
    with workspace(threads=1) as con, reading(con, pipeline.project, purpose="reporting a backfill to Dagster"):
        finished = finished_keys(con, backfill.backfill_id) | done
    recorded = FinishedRuns(
        backfill_id=_short(backfill),
        assets=own_keys(pipeline.spec),
        keys=backfill.partition_keys,
        done=finished,
        began=backfill.made_at.timestamp(),
        tags={"user": backfill.made_by} | ({WHY_TAG: backfill.why} if backfill.why else {}),
    )
    try:
        record_backfill(instance, asset_graph, recorded)
    except Exception as error:  # what is shown of it must not end the backfill
        raise_if_interrupted(error)
        LOG.warning(f"{backfill.backfill_id}: Dagster's UI does not group its runs: {error}")


def _short(backfill: Backfill) -> str:
    """Its id in Dagster: the UI shows so many characters."""
    return backfill.backfill_id[-8:]


def tags_of(backfill: Backfill, chunk: Sequence[Partition]) -> dict[str, str]:
    """The tags of a run of the backfill."""
    tags = {
        "dagster/asset_partition_range_start": chunk[0].key,
        "dagster/asset_partition_range_end": chunk[-1].key,
        **range_tags([partition.key for partition in chunk]),
        BACKFILL_TAG: backfill.backfill_id,
        VERSION_TAG: str(backfill.model_version),
        PINNED_TAG: str(backfill.pinned).lower(),
        "user": backfill.made_by,
    }
    tags |= {WHY_TAG: backfill.why} if backfill.why else {}  # the UI shows an empty one
    return tags | ({AS_KNOWN_TAG: "true"} if backfill.as_known else {})


def end_runs(
    pipeline: Pipeline, instance: dg.DagsterInstance, backfill_id: str, *, cancelled: bool = False
) -> list[str]:
    """End a backfill's runs that were `cancelled`, else killed, and report what they committed; returns their ids.

    A run that Dagster found dead and ended is included: what it committed was not reported. Call this only while no
    other process works on the backfill.
    """
    filters = dg.RunsFilter(tags={BACKFILL_TAG: backfill_id}, statuses=[*UNFINISHED, dg.DagsterRunStatus.FAILURE])
    key = predictions_key(pipeline.spec)
    ended = []
    for run in instance.get_runs(filters):
        with (
            workspace(threads=1) as con,
            writing(con, pipeline.project, purpose="reporting a killed run to Dagster"),
        ):
            finished = finished_by_run(con, run.run_id)
            entries = [
                e for e in scorings_of(con, pipeline.spec.name, list(finished)) if e.scoring_id in finished.values()
            ]
        # The index by asset, not the run's own log: the log is written first, and a kill may come between.
        wanted = dg.AssetRecordsFilter(key, asset_partitions=list(finished))
        reported: dict[str | None, float] = {}
        for record in instance.fetch_materializations(wanted, limit=10_000).records if finished else ():
            reported[record.partition_key] = max(record.timestamp, reported.get(record.partition_key, 0))
        unreported = [entry for entry in entries if reported.get(entry.partition_key, 0) < entry.made_at.timestamp()]
        for entry in unreported:
            metadata = predictions_metadata(entry, False)
            instance.report_runless_asset_event(
                dg.AssetMaterialization(key, partition=entry.partition_key, metadata=metadata)
            )
        if run.is_finished:
            ended += [run.run_id] if unreported else []
            continue
        kept = f"{plural(len(finished), 'committed partition')} stay{'s' if len(finished) == 1 else ''}."
        if cancelled:
            instance.report_run_canceled(run, message=f"Interrupted. {kept}")
        else:
            instance.report_run_failed(run, f"Its process was killed. {kept}")
        ended.append(run.run_id)
    return ended


def end_killed(pipeline: Pipeline, instance: dg.DagsterInstance) -> list[str]:
    """The same for the runs of the job whose process is gone and that nobody resumes; returns their ids."""
    filters = dg.RunsFilter(job_name=f"{pipeline.spec.name}_job", statuses=list(UNFINISHED))
    requests = {run.tags.get(BACKFILL_TAG) for run in instance.get_runs(filters) if is_gone(instance, run)} - {None}
    return [run_id for request in requests for run_id in end_runs(pipeline, instance, str(request))]


def _interrupted(result: dg.ExecuteInProcessResult) -> bool:
    failures = [event for event in result.all_events if event.is_step_failure]
    names = {event.step_failure_data.error.cls_name for event in failures if event.step_failure_data.error}
    return bool(names & {"KeyboardInterrupt", "DagsterExecutionInterruptedError"})


def _failure(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                return str(data.user_failure_data.description)
            return data.error.to_string() if data.error else "the step failed"
    return f"run {result.run_id} failed before its step started; see it in the UI"
