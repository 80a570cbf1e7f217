"""The names of a pipeline's assets and checks."""

from __future__ import annotations

import dagster as dg

from pip_dagster.declaration.spec import PipelineSpec

# The checks beside those of the expectations.
SPLIT_NAME, DRIFT_NAME, ESTIMATE_NAME, PERFORMANCE_NAME = CHECK_NAMES = ("split", "drift", "estimate", "performance")


def features_key(spec: PipelineSpec) -> dg.AssetKey:
    """The feature snapshot."""
    return dg.AssetKey([spec.name, "features"])


def predictions_key(spec: PipelineSpec) -> dg.AssetKey:
    """The prediction table."""
    return dg.AssetKey([spec.name, "predictions"])


def challengers_key(spec: PipelineSpec) -> dg.AssetKey:
    """The scores of challengers and arms on the champion's rows."""
    return dg.AssetKey([spec.name, "challengers"])


def performance_key(spec: PipelineSpec) -> dg.AssetKey:
    """What labels show of the predictions."""
    return dg.AssetKey([spec.name, "performance"])


def report_key(spec: PipelineSpec) -> dg.AssetKey:
    """The report of a pipeline that is monitored."""
    return dg.AssetKey([spec.name, "report"])


def delivered_key(spec: PipelineSpec) -> dg.AssetKey:
    """What the declared targets have of the predictions."""
    return dg.AssetKey([spec.name, "delivered"])


def purged_key(spec: PipelineSpec) -> dg.AssetKey:
    """What retention removed."""
    return dg.AssetKey([spec.name, "purged"])


def own_keys(spec: PipelineSpec) -> list[dg.AssetKey]:
    """The assets that a run of the pipeline materializes: the challengers only where versions are compared."""
    return [features_key(spec), predictions_key(spec)] + ([challengers_key(spec)] if spec.scoring.compared else [])


def model_key(spec: PipelineSpec) -> dg.AssetKey:
    """The model behind the declared alias."""
    return dg.AssetKey([spec.name, "model"])


def source_key(spec: PipelineSpec, source: str) -> dg.AssetKey:
    """A source table: the asset that the declaration names for it, else an external one of this pipeline."""
    declared = spec.sources[source].asset_key
    return dg.AssetKey(declared.split("/")) if declared else dg.AssetKey([spec.name, "sources", source])
