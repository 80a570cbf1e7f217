"""The ledger's entries as metadata for the UI."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.flow.result import PartitionResult
from pip_dagster.ledger.challengers import compare
from pip_dagster.ledger.checks import SPLIT
from pip_dagster.ledger.record import ExtractionEntry, ScoringEntry, latest_extractions
from pip_dagster.registry.choose import registry_of
from pip_dagster.warehouse.access import reading, writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.lock import waiting_at_most


def features_metadata(entry: ExtractionEntry) -> dict[str, Any]:
    """A partition's feature snapshot."""
    return {
        "dagster/partition_row_count": entry.rows_extracted,
        "revision": entry.revision,
        "new_revision": entry.is_new,
        "feature_digest": entry.feature_digest,
        **_cost(entry),
        **_empty_note(entry.rows_extracted),
    }


def features_of_run(pipeline: Pipeline, run_id: str, partition_keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Partition → the snapshot that this run committed; none if it cannot be read soon, because the run is ending."""
    # Whatever prevents reading them must not hide the reason for which the run ends.
    with suppress(Exception), waiting_at_most(2), workspace(threads=1) as con:
        with reading(con, pipeline.project, purpose="reporting features to Dagster"):
            found = latest_extractions(con, pipeline.spec.name, list(partition_keys))
        return {key: features_metadata(entry) for key, entry in found.items() if entry.run_id == run_id}
    return {}


def predictions_metadata(entry: ScoringEntry, reused: bool) -> dict[str, Any]:
    """A partition's scoring. Numbers are numbers, so that the UI plots them over the partitions."""
    metadata: dict[str, Any] = {
        "dagster/partition_row_count": entry.rows_scored or 0,
        "model_version": entry.model_version,
        "model": f"{entry.model_name} v{entry.model_version}",
        "model_digest": entry.model_digest,
        "rows_in": entry.rows_in,
        "rows_quarantined": entry.rows_quarantined,
        "scoring_id": entry.scoring_id,
        "feature_revision": entry.feature_revision,
        "score_digest": entry.score_digest,
        "device": f"{entry.device} ({entry.device_reason})",
        **_cost(entry),
        "reused": reused,
        **_empty_note(entry.rows_in or 0),
    }
    if entry.mean_score is not None:
        metadata |= {"mean_score": entry.mean_score, "min_score": entry.min_score, "max_score": entry.max_score}
    if entry.rows_per_second:
        metadata["rows_per_second"] = round(entry.rows_per_second)
    if entry.found:
        metadata["findings"] = dg.MetadataValue.json(entry.found)
    return metadata


def arms_metadata(result: PartitionResult) -> dict[str, Any]:
    """The versions and shares of a partition that is split, with rows and units of each for plots."""
    versions = {entry.scoring_id: entry.model_version for entry in (result.scoring, *result.arms.values()) if entry}
    shares: dict[str, float] = {}
    for arm in result.live_arms:
        name = f"arm {arm.arm} (v{versions.get(arm.scoring_id)})"
        shares[name] = shares.get(name, 0.0) + arm.share
    metadata: dict[str, Any] = {name: f"{share:.2%}" for name, share in shares.items()}
    for check in result.checks:
        if check.section == SPLIT and check.expectation_id == "sample_ratio" and check.observed:
            observed = json.loads(check.observed)
            for arm, counted in observed.items():
                if isinstance(counted, dict):
                    metadata |= {f"rows of {arm}": counted["rows"], f"units of {arm}": counted["units"]}
            if "p" in observed:
                metadata["sample ratio p"] = observed["p"]
    return metadata


def _cost(entry: ExtractionEntry | ScoringEntry) -> dict[str, Any]:
    """The partition's own share of the time; the memory is its process's."""
    cost: dict[str, Any] = {"seconds": round(entry.seconds or 0.0, 4)}
    if entry.cpu_seconds is not None:
        cost["cpu_seconds"] = round(entry.cpu_seconds, 4)
    if entry.peak_memory is not None:
        cost["peak_memory_mb"] = round(entry.peak_memory / 1e6)
    return cost


def _empty_note(rows: int) -> dict[str, str]:
    return {} if rows else {"note": "empty: the sources have no row for this partition"}


def column_schema(columns: Mapping[str, tuple[str, str]]) -> dg.TableSchema:
    """Columns by name, each with its type and description."""
    return dg.TableSchema(
        columns=[dg.TableColumn(name, type=kind, description=text) for name, (kind, text) in columns.items()]
    )


def challengers_metadata(pipeline: Pipeline, partition_keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Partition → its challengers' scores against the live ones. Numbers, so that the UI plots them."""
    spec = pipeline.spec
    live = registry_of(pipeline.project, spec.scoring).get(spec.scoring.model_name, spec.scoring.alias)
    with workspace(threads=1) as con, writing(con, pipeline.project, purpose="comparing models", publish=False):
        found = compare(con, spec, live.manifest.outputs[0], partition_keys)
    metadata: dict[str, dict[str, Any]] = {}
    for each in found:
        prefix = f"v{each.challenger_version}"
        figures = {
            "mean_score": each.challenger_mean,
            "mean_absolute_difference": each.mean_absolute_difference,
            "largest_difference": each.largest_difference,
            "correlation": each.correlation,
            **{f"flips of {name}": share for name, share in each.flips.items()},
        }
        of_partition = metadata.setdefault(
            each.partition_key, {"live_version": each.champion_version, "rows": each.rows}
        )
        of_partition |= {f"{prefix} {name}": value for name, value in figures.items() if value is not None}
    return metadata
