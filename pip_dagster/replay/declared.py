"""What was declared when a partition was scored, as far as its replay needs it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.spec import PipelineSpec
    from pip_dagster.ledger.record import ScoringEntry


def spec_of(pipeline: Pipeline, entry: ScoringEntry, stored: Sequence[str]) -> PipelineSpec:
    """The declaration with the key and the decisions of a scoring, which stored these columns.

    The ledger records both. For a scoring from before it did, they are those of today where recorded digests show that
    these are the same; decisions that are not are left out.
    """
    spec = pipeline.spec
    if entry.declared_row:
        recorded = json.loads(entry.declared_row)
        return _with(spec, recorded["key"], dict(recorded["decisions"]))
    then, now = json.loads(entry.declared_parts or "{}"), json.loads(pipeline.scoring_parts)

    def same(part: str) -> bool:
        return entry.code_digest == pipeline.scoring_digest or then.get(part) == now[part]

    # No digest covers the order of decisions; that of the stored columns is the one in which they were evaluated.
    decisions = {name: spec.decisions[name] for name in stored if name in spec.decisions}
    known = same("decisions") and len(decisions) == len(spec.decisions)
    return _with(spec, spec.features.key if same("features.key") else (), decisions if known else {})


def _with(spec: PipelineSpec, key: Sequence[str], decisions: dict[str, Any]) -> PipelineSpec:
    features = spec.features.model_copy(update={"key": tuple(key)})
    return spec.model_copy(update={"features": features, "decisions": decisions})
