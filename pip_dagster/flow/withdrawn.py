"""What was rolled back since something was asked for: a newer word on what should be live."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.ledger.backfills import rolled_back_since
from pip_dagster.ledger.rollback_plan import ROLLBACK
from pip_dagster.registry.choose import registry_of
from pip_dagster.warehouse.connect import open_warehouse, workspace

if TYPE_CHECKING:
    from pip_dagster.pipeline import Pipeline


def withdrawn_since(
    pipeline: Pipeline, partition_keys: Sequence[str], version: int | None, asked_at: datetime
) -> dict[str, str]:
    """Partition → who rolled back what since `asked_at`, so that a run that was asked for then would undo it.

    `version`: the one that was asked for by number; where it was itself rolled back, all partitions are told.

    Raises:
        WarehouseError: the warehouse cannot be opened, or is held by somebody else for too long.

    """
    if version is not None and (why := version_withdrawn(pipeline, version, asked_at)):
        return dict.fromkeys(partition_keys, why)
    name, path = pipeline.spec.name, pipeline.project.warehouse
    purpose = f"{name}: looking for rollbacks"
    if isinstance(path, Path) and not path.is_file():  # to open it would make it
        return {}
    # To write, so that one of an older version is brought to this one instead of being refused.
    with workspace(threads=1) as con, open_warehouse(con, path, purpose=purpose):
        found = rolled_back_since(con, name, partition_keys, asked_at)
    return {key: f"{key} was {why} (by {by})" for key, by, why in found}


def version_withdrawn(pipeline: Pipeline, version: int, since: datetime) -> str | None:
    """Who rolled the alias back from this version since then, and why.

    The rollback of a version that nothing came before changes no partition, only the alias.
    """
    scoring = pipeline.spec.scoring
    for move in registry_of(pipeline.project, scoring).alias_history(scoring.model_name, scoring.alias):
        if move.at > since and move.previous == version and move.why.startswith(ROLLBACK):
            return f"v{move.previous} was rolled back to v{move.version} (by {move.by}): {move.why.partition(': ')[2]}"
    return None
