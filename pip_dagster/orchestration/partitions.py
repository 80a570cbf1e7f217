"""The declared grid of partitions as Dagster's definition, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import dagster as dg

from pip_dagster.declaration.grid import partition_named
from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.spec import Partitions

_DEFINITIONS: dict[Literal["hour", "day", "week", "month"], Any] = {
    "hour": (dg.HourlyPartitionsDefinition, "%Y-%m-%d-%H:%M"),
    "day": (dg.DailyPartitionsDefinition, "%Y-%m-%d"),
    "week": (dg.WeeklyPartitionsDefinition, "%Y-%m-%d"),
    "month": (dg.MonthlyPartitionsDefinition, "%Y-%m-%d"),
}


def partitions_definition(declared: Partitions) -> dg.TimeWindowPartitionsDefinition:
    """Dagster's definition of the declared grid."""
    kind, fmt = _DEFINITIONS[declared.every]
    return kind(
        start_date=declared.start.strftime(fmt),
        end_date=declared.end.strftime(fmt) if declared.end else None,
        timezone=declared.time_zone,
        end_offset=declared.end_offset,
    )


def partitions_of(definition: dg.TimeWindowPartitionsDefinition, keys: Sequence[str]) -> list[Partition]:
    """The partitions that the keys name, by the one grid of this package: Dagster knows the keys only.

    Raises:
        ValueError: a key names no partition of the grid.
    """
    [every] = [name for name, (kind, _) in _DEFINITIONS.items() if isinstance(definition, kind)]
    # It was validated when it was declared; without its end it might not be valid.
    declared = Partitions.model_construct(
        every=every, start=definition.start.replace(tzinfo=None), time_zone=definition.timezone
    )
    return [partition_named(declared, key) for key in keys]
