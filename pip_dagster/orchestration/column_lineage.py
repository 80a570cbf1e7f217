"""The columns of the prediction table for the UI: their types, and which columns each is computed from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.spec import PipelineSpec
from pip_dagster.ledger.column_lineage import row_columns
from pip_dagster.ledger.record import ScoringEntry
from pip_dagster.orchestration.keys import features_key, predictions_key
from pip_dagster.orchestration.metadata import column_schema
from pip_dagster.registry.engines import objective_of
from pip_dagster.registry.manifest import Manifest
from pip_dagster.registry.store import Registry

# Columns that the warehouse adds to each row; they are not computed from other columns, except the arm.
_ADDED = {
    "scoring_id": ("VARCHAR", "The scoring in the ledger: model, features, declaration and libraries of the row."),
    "model_name": ("VARCHAR", "The name of the model that scored the row, in the registry."),
    "model_version": ("BIGINT", "The version of the model that scored the row."),
    "feature_revision": ("VARCHAR", "The revision of the feature snapshot that was scored."),
    "scored_at": ("TIMESTAMP WITH TIME ZONE", "When the row was scored."),
    "provisional": ("BOOLEAN", "Whether the row was scored before its sources were complete."),
    "arm": ("VARCHAR", "The arm of a split that the row belongs to; champion without a split."),
}


def lineage_metadata(pipeline: Pipeline, entry: ScoringEntry, types: Mapping[str, str]) -> dict[str, Any]:
    """Schema and column lineage of the prediction table; `types` are the scored rows' SQL types by name."""
    manifest = Registry(pipeline.project.registry).get(entry.model_name, entry.model_version or 0).manifest
    spec = pipeline.spec
    row = row_columns(types, manifest, spec.decisions, spec.unit)
    computed = row.computed
    keys = {True: predictions_key(spec), False: features_key(spec)}
    lineage = {
        name: [dg.TableColumnDep(keys[each in computed], each) for each in read] for name, read in row.reads.items()
    }
    carried = [name for name in types if name not in computed and name != "partition_key"]
    by = f"(model {entry.model_name} v{entry.model_version})"
    scores = dict.fromkeys(computed, f"Computed from the score {by}.")
    scores |= {name: f"{_output(manifest, spec)} {by}." for name in manifest.outputs}
    texts = {"partition_key": "The partition: the stretch of time that the row belongs to."}
    texts |= {name: f"As in the features: `{name}` of `{spec.features.sql}`." for name in carried}
    texts |= dict.fromkeys(spec.features.key, "Part of the key, which identifies a row in its partition.")
    texts |= scores | {name: f"Decision: {text}" for name, text in spec.decisions.items()} | spec.columns
    ordered = sorted(types, key=lambda name: (name in computed, name in spec.decisions))
    columns = {name: (types[name], texts.get(name, "")) for name in ordered}
    own = {name: (kind, spec.columns.get(name, text)) for name, (kind, text) in _ADDED.items()}
    return {
        "dagster/column_schema": column_schema(columns | own),
        "dagster/column_lineage": dg.TableColumnLineage(lineage),
    }


_OUTPUTS = {
    "binary": "Probability of the positive class",
    "multiclass": "Probability of the class",
    "count": "Expected count",
    "ranking": "Rank score, comparable within a group",
    "survival": "Predicted survival",
    "regression": "Predicted value",
}


def _output(manifest: Manifest, spec: PipelineSpec) -> str:
    """What a model's output is; of a probability, the declared outcome's."""
    meaning, labels = _OUTPUTS.get(manifest.task, f"Output of {manifest.objective}"), spec.declared_labels
    if manifest.task != "binary":
        return meaning
    if objective_of(manifest).link == "identity":
        return "Log-odds of the positive class"
    return f"Probability that `{labels.outcome}` is true" if labels and labels.outcome else meaning
