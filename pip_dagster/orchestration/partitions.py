"""The declared grid of partitions as Dagster's definition, and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, get_args

import dagster as dg

from pip_dagster.declaration.every import STEPS, Every
from pip_dagster.declaration.grid import partition_named
from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.spec import Partitions

_CRONS = {every: f"*/{step // timedelta(minutes=1)} * * * *" for every, step in STEPS.items()} | {
    "hour": "0 * * * *",
    "day": "0 0 * * *",
    "week": "0 0 * * 0",
    "month": "0 0 1 * *",
}
# Dagster shows these by their names.
_NAMED: dict[str, Any] = {
    "hour": dg.HourlyPartitionsDefinition,
    "day": dg.DailyPartitionsDefinition,
    "week": dg.WeeklyPartitionsDefinition,
    "month": dg.MonthlyPartitionsDefinition,
}


def partitions_definition(declared: Partitions) -> dg.TimeWindowPartitionsDefinition:
    """Dagster's definition of the declared grid."""
    fmt = "%Y-%m-%d-%H:%M" if declared.step else "%Y-%m-%d"
    start, end = declared.start.strftime(fmt), declared.end.strftime(fmt) if declared.end else None
    common: dict[str, Any] = {"timezone": declared.time_zone, "end_offset": declared.end_offset}
    if kind := _NAMED.get(declared.every):
        return kind(start_date=start, end_date=end, **common)
    return dg.TimeWindowPartitionsDefinition(
        start=start, end=end, fmt=fmt, cron_schedule=_CRONS[declared.every], **common
    )


def partitions_of(definition: dg.TimeWindowPartitionsDefinition, keys: Sequence[str]) -> list[Partition]:
    """The partitions that the keys name, by the one grid of this package: Dagster knows the keys only.

    Raises:
        ValueError: a key names no partition of the grid.
    """
    [every] = [name for name in get_args(Every) if definition.cron_schedule == _CRONS[name]]
    # It was validated when it was declared; without its end it might not be valid.
    declared = Partitions.model_construct(
        every=every, start=definition.start.replace(tzinfo=None), time_zone=definition.timezone
    )
    return [partition_named(declared, key) for key in keys]
