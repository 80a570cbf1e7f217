"""The partitions of Dagster's runs, and requests of runs for a range of partitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from pip_dagster.declaration.partition import Partition
from pip_dagster.orchestration.partitions import partitions_of

PARTITION = "dagster/partition"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
REASON = "pip_dagster/reason"
PARTITIONS = "partitions"

UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def run_request(
    partitions: Sequence[Partition], *, run_key: str, tags: Mapping[str, str], **options: Any
) -> dg.RunRequest:
    """A request of one run for these contiguous partitions."""
    first, last = partitions[0].key, partitions[-1].key
    if first == last:
        return dg.RunRequest(run_key=run_key, partition_key=first, tags=dict(tags), **options)
    bounds = {RANGE_START: first, RANGE_END: last, **range_tags([first, last])}
    return dg.RunRequest(run_key=run_key, tags=dict(tags) | bounds, **options)


def range_tags(keys: Sequence[str]) -> dict[str, str]:
    """The tag that names a range in the UI, which hides Dagster's own two; none for one partition, which it shows."""
    return {PARTITIONS: f"{keys[0]}…{keys[-1]}"} if len(keys) > 1 else {}


def has_partitions(tags: Mapping[str, str]) -> bool:
    """Whether a run with these tags is about partitions; *Execute* of a check launches one that is not."""
    return PARTITION in tags or RANGE_START in tags


def covered(
    definition: dg.TimeWindowPartitionsDefinition, tags: Mapping[str, str], candidates: Iterable[Partition]
) -> set[str]:
    """Which of the candidates a run with these tags is about; all of them where the tags name no partition."""
    if key := tags.get(PARTITION):
        return {each.key for each in candidates if each.key == key}
    if RANGE_START not in tags or RANGE_END not in tags:
        return {each.key for each in candidates}
    try:
        first, last = partitions_of(definition, [tags[RANGE_START], tags[RANGE_END]])
    except ValueError:  # a key of an older grid
        return set()
    return {each.key for each in candidates if first.start <= each.start <= last.start}
