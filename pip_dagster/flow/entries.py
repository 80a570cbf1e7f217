"""The ledger's entry for a scoring, or for an attempt at one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster import clock
from pip_dagster.declaration.canonical import canonical
from pip_dagster.declaration.partition import Partition
from pip_dagster.flow.engine import library_versions
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.run import Run
from pip_dagster.flow.score import Scored
from pip_dagster.ledger import audit, record
from pip_dagster.ledger.record import ExtractionEntry, ScoringEntry

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline


def failed_extraction(
    run: Run, model: ScoringModel | None, partition: Partition, reason: str, sources: Mapping[str, Mapping[str, object]]
) -> ScoringEntry:
    """The ledger's entry for a partition whose features could not be built, with what its sources contained."""
    entry = scoring_entry(run, model, partition, None, status="failed", reason=reason)
    read, sql = canonical(sources), run.pipeline.sql_digest
    inputs = record.inputs_digest(read, sql, entry.code_digest, entry.manifest_digest)
    return replace(entry, source_digests=read, inputs_digest=inputs)


def judged_by_share(entry: ScoringEntry, pipeline: Pipeline) -> ScoringEntry:
    """The entry of a partition with too few rows: another `min_row_share` is another input, and it is tried again."""
    code = record.with_share(pipeline.scoring_digest, pipeline.spec.min_row_share)
    read, sql = entry.source_digests or "{}", pipeline.sql_digest
    return replace(entry, inputs_digest=record.inputs_digest(read, sql, code, entry.manifest_digest))


def scoring_entry(
    run: Run,
    model: ScoringModel | None,
    partition: Partition,
    features: ExtractionEntry | None,
    *,
    status: Literal["scored", "blocked", "failed"],
    scored: Scored | None = None,
    reason: str | None = None,
) -> ScoringEntry:
    """The ledger's entry for an attempt at a partition; its table is known once its rows are stored."""
    pipeline = run.pipeline
    outcome: dict[str, Any] = {each.name: getattr(scored, each.name, None) for each in fields(Scored)}
    if scored:
        outcome["findings"] = canonical(scored.findings)
    elif features:
        outcome["rows_in"] = features.rows_extracted
    return ScoringEntry(
        scoring_id=record.new_id(),
        pipeline=pipeline.spec.name,
        **record.partition_fields(partition),
        status=status,
        reason=reason,
        role=model.role if model else "champion",
        model_name=pipeline.spec.scoring.model_name,
        model_version=model.version.version if model else None,
        model_digest=model.version.digest if model else None,
        manifest_digest=model.version.manifest_digest if model else None,
        feature_revision=features.revision if features else None,
        feature_digest=features.feature_digest if features else None,
        source_digests=features.source_digests if features else None,
        code_digest=pipeline.scoring_digest,
        engine=model.engine if model else canonical(library_versions()),
        device=model.device.name if model else None,
        device_reason=model.device.reason if model else None,
        threads=model.threads if model else None,
        table_name=None,
        run_id=run.info.run_id,
        made_by=run.info.made_by,
        made_at=clock.now(),
        provisional=bool(features.provisional) if features else None,
        inputs_digest=record.inputs_digest(
            features.source_digests,
            features.sql_digest,
            pipeline.scoring_digest,
            model.version.manifest_digest if model else None,
        )
        if features
        else None,
        declared_parts=pipeline.scoring_parts,
        declared_row=pipeline.declared_row,
        nonce=audit.new_nonce(),
        **outcome,
    )
