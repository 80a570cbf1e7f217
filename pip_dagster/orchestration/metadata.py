"""The ledger's entries as metadata for the UI."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import dagster as dg

from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.flow.findings import in_words
from pip_dagster.flow.result import PartitionResult
from pip_dagster.ledger.challengers import compare
from pip_dagster.ledger.checks import SPLIT
from pip_dagster.ledger.record import ExtractionEntry, ScoringEntry, latest_extractions
from pip_dagster.registry.choose import registry_of
from pip_dagster.warehouse.access import reading, writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.lock import waiting_at_most


def features_metadata(entry: ExtractionEntry) -> dict[str, Any]:
    """A partition's feature snapshot: figures first, digests last."""
    return {
        "rows": entry.rows_extracted,
        **_empty_note(entry.rows_extracted),
        "changed": "yes: a new revision" if entry.is_new else "no: the rows are those of an earlier revision",
        **_cost(entry, "extraction"),
        "digests": digests({"revision": entry.revision, "features": entry.feature_digest, "SQL": entry.sql_digest}),
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
    """A partition's scoring: figures first, digests last. Numbers are numbers, so that the UI plots them."""
    metadata: dict[str, Any] = {"rows": entry.rows_scored or 0, **_empty_note(entry.rows_in or 0)}
    if entry.mean_score is not None:
        metadata |= {"mean score": rounded(entry.mean_score)}
        metadata |= {"lowest score": rounded(entry.min_score), "highest score": rounded(entry.max_score)}
    metadata |= {"rows quarantined": entry.rows_quarantined or 0}
    if findings := in_words(entry.found):
        metadata["findings"] = findings
    metadata |= {"model": f"{entry.model_name} v{entry.model_version}", "model version": entry.model_version}
    if reused:
        metadata["unchanged"] = "yes: the inputs, model and libraries are those of the stored scores, which were kept"
    metadata |= _cost(entry, "scoring")
    if entry.rows_per_second:
        metadata["rows per second"] = round(entry.rows_per_second)
    metadata["device"] = f"{entry.device} ({entry.device_reason})"
    found = {"scoring": entry.scoring_id, "feature revision": entry.feature_revision, "model": entry.model_digest}
    return metadata | {"digests": digests(found | {"scores": entry.score_digest})}


def rounded(value: float | None) -> float | None:
    """Four places, or four digits of a smaller number: the UI shows all that there are."""
    return None if value is None else round(value, 4) if abs(value) >= 0.01 else float(f"{value:.4g}")


def digests(of: Mapping[str, str | None]) -> dg.MetadataValue:
    """Digests and ids in one block."""
    return dg.MetadataValue.md("\n".join(f"- {name}: `{value}`" for name, value in of.items() if value))


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
                metadata["sample ratio p"] = rounded(observed["p"])
    return metadata


def _cost(entry: ExtractionEntry | ScoringEntry, what: str) -> dict[str, Any]:
    """The partition's own share of the time; the memory is its process's."""
    cost: dict[str, Any] = {f"{what} time (s)": rounded(entry.seconds or 0.0)}
    if entry.cpu_seconds is not None:
        cost[f"{what} CPU time (s)"] = rounded(entry.cpu_seconds)
    if entry.peak_memory is not None:
        cost["peak memory (MB)"] = round(entry.peak_memory / 1e6)
    if isinstance(entry, ScoringEntry) and entry.lock_seconds is not None:
        cost["waited for the warehouse (s)"] = rounded(entry.lock_seconds)
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
            "mean score": each.challenger_mean,
            "mean absolute difference": each.mean_absolute_difference,
            "largest difference": each.largest_difference,
            "correlation": each.correlation,
            **{f"flips of {name}": share for name, share in each.flips.items()},
        }
        of_partition = metadata.setdefault(
            each.partition_key, {"rows": each.rows, "live version": each.champion_version}
        )
        of_partition |= {f"{prefix} {name}": rounded(value) for name, value in figures.items() if value is not None}
    return metadata
