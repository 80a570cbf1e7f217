"""From staged features to stored predictions, for a few partitions at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pip_dagster.errors import PartitionError
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.partition import Partition
from pip_dagster.flow.publish import make_live, store_failure, store_scores
from pip_dagster.flow.result import PartitionResult
from pip_dagster.flow.score import Scored, Scoring, score, scored_columns
from pip_dagster.ledger import record
from pip_dagster.ledger.record import ExtractionEntry, RunInfo, ScoringEntry
from pip_dagster.warehouse.connect import open_warehouse
from pip_dagster.warehouse.windows import in_windows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.pipeline import Pipeline

Made = tuple[Partition, ExtractionEntry]


def predict(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    model: ScoringModel,
    columns: dict[str, str],
    made: Sequence[Made],
    stage: Callable[[list[ExtractionEntry]], object] | None,
    run: RunInfo,
) -> list[PartitionResult]:
    """Score these partitions' features, whose columns are `columns`, and commit each in a transaction of its own.

    `stage` brings features to the staging table first, where they are not there already. A partition whose very
    scoring is in the ledger is not scored again; at most it is made live.

    Raises:
        DeclarationError: the columns do not fit the model.
        RegistryError: the model's bytes are not those that were registered.

    """
    types = scored_columns(pipeline.spec, model.version.manifest, columns)
    known = _known_scorings(con, pipeline, model, made)
    fresh = [(partition, features) for partition, features in made if partition.key not in known]
    scoring: Scoring | None = None
    if fresh:
        if stage:
            stage([features for _, features in fresh])
        keys = [partition.key for partition, _ in fresh]
        scoring = score(con, pipeline.spec, model.predictor, model.version.manifest, columns, keys)

    def store(item: Made) -> PartitionResult:
        partition, features = item
        if partition.key in known:
            entry = known[partition.key]
            make_live(con, entry, run, "materialized again with the same inputs")
            return PartitionResult(partition, features, entry, reused=True, columns=types)
        assert scoring
        if reason := scoring.failed.get(partition.key):
            store_failure(con, _entry(pipeline, model, partition, features, run, reason=reason))
            return PartitionResult(partition, features, error=reason)
        scored = scoring.scored[partition.key]
        entry = _entry(pipeline, model, partition, features, run, scored=scored)
        try:
            entry = store_scores(con, scoring, scored, entry, columns, run, "scored")
            return PartitionResult(partition, features, entry, columns=types)
        except PartitionError as error:
            store_failure(con, _entry(pipeline, model, partition, features, run, reason=str(error)))
            return PartitionResult(partition, features, error=str(error))

    return in_windows(con, pipeline.project, list(made), store, purpose=f"{pipeline.spec.name}: storing predictions")


def _known_scorings(
    con: DuckDBPyConnection, pipeline: Pipeline, model: ScoringModel, made: Sequence[Made]
) -> dict[str, ScoringEntry]:
    """Partitions whose scoring by the same model, features, declaration, libraries and device is stored."""
    name = pipeline.spec.name
    features = {partition.key: entry.feature_digest for partition, entry in made}
    with open_warehouse(con, pipeline.project.warehouse, purpose=f"{name}: reading the ledger"):
        entries = record.scorings_of(con, name, list(features))
    wanted = (model.version.manifest_digest, pipeline.scoring_digest, model.engine, model.device.name, "champion")
    return {
        entry.partition_key: entry
        for entry in entries
        if (entry.manifest_digest, entry.code_digest, entry.engine, entry.device, entry.role) == wanted
        and entry.feature_digest == features[entry.partition_key]
    }


def _entry(
    pipeline: Pipeline,
    model: ScoringModel,
    partition: Partition,
    features: ExtractionEntry,
    run: RunInfo,
    *,
    scored: Scored | None = None,
    reason: str | None = None,
) -> ScoringEntry:
    outcome: dict[str, Any] = {
        "status": "failed",
        "rows_in": features.rows_extracted,
        **dict.fromkeys(("rows_scored", "rows_quarantined", "findings", "mean_score", "min_score", "max_score")),
        **dict.fromkeys(("score_digest", "seconds")),
    }
    if scored:
        outcome = {
            "status": "scored",
            "rows_in": scored.rows_in,
            "rows_scored": scored.rows_scored,
            "rows_quarantined": scored.rows_quarantined,
            "findings": record.canonical(scored.findings),
            "mean_score": scored.mean,
            "min_score": scored.low,
            "max_score": scored.high,
            "score_digest": scored.digest,
            "seconds": scored.seconds,
        }
    return ScoringEntry(
        scoring_id=record.new_id(),
        pipeline=pipeline.spec.name,
        **record.partition_fields(partition),
        reason=reason,
        role="champion",
        model_name=model.version.name,
        model_version=model.version.version,
        model_digest=model.version.digest,
        manifest_digest=model.version.manifest_digest,
        feature_revision=features.revision,
        feature_digest=features.feature_digest,
        source_digests=features.source_digests,
        code_digest=pipeline.scoring_digest,
        engine=model.engine,
        device=model.device.name,
        device_reason=model.device.reason,
        threads=model.threads,
        table_name=None,
        run_id=run.run_id,
        made_by=run.made_by,
        made_at=datetime.now(UTC),
        **outcome,
    )
