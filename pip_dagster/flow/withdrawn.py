"""Whether a version was rolled back after a run requested it by number; the rollback then takes precedence.

`ledger.live.make_live` checks the same for single partitions, in the transaction that would make them live.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster.registry.choose import registry_of

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline


def version_withdrawn(pipeline: Pipeline, version: int, since: datetime) -> str | None:
    """Who rolled the alias back from this version since then, and why; None if nobody did.

    A rollback from the first version that ever scored changes no partition, only the alias.
    """
    scoring = pipeline.spec.scoring
    for move in registry_of(pipeline.project, scoring).alias_history(scoring.model_name, scoring.alias):
        if move.at > since and move.previous == version and move.rollback_id:
            why = move.why.removeprefix(f"{move.rollback_id}: ")
            return f"v{move.previous} was rolled back to v{move.version} (by {move.by}): {why}"
    return None
