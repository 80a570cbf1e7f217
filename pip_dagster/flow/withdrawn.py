"""Whether a version was rolled back since it was asked for by number: a newer word on what should be live.

Of single partitions that is seen when they are made live, in that very transaction: see `ledger.live.make_live`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster.ledger.rollback_plan import ROLLBACK
from pip_dagster.registry.choose import registry_of

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline


def version_withdrawn(pipeline: Pipeline, version: int, since: datetime) -> str | None:
    """Who rolled the alias back from this version since then, and why.

    The rollback of a version that nothing came before changes no partition, only the alias.
    """
    scoring = pipeline.spec.scoring
    for move in registry_of(pipeline.project, scoring).alias_history(scoring.model_name, scoring.alias):
        if move.at > since and move.previous == version and move.why.startswith(ROLLBACK):
            return f"v{move.previous} was rolled back to v{move.version} (by {move.by}): {move.why.partition(': ')[2]}"
    return None
