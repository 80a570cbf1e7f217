"""Storing a partition: each step one transaction, so that a kill leaves it wholly old or wholly new."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pip_dagster.errors import PartitionError
from pip_dagster.flow.extract import Extract
from pip_dagster.flow.query import STAGED
from pip_dagster.flow.score import SCORED, Scored, Scoring
from pip_dagster.ledger import record
from pip_dagster.ledger.record import ExtractionEntry, RunInfo, ScoringEntry
from pip_dagster.warehouse.connect import transaction
from pip_dagster.warehouse.names import literal, quote, quote_all
from pip_dagster.warehouse.tables import ensure_table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def store_features(
    con: DuckDBPyConnection, pipeline: str, columns: dict[str, str], made: Extract, sql: str, run: RunInfo
) -> ExtractionEntry:
    """Keep a partition's staged features as a new revision, unless the newest one has the same content.

    The warehouse is the current catalog.

    Raises:
        PartitionError: another number of rows arrived than was staged; rolled back.

    """
    key = made.partition.key
    with transaction(con):
        known = record.latest_extraction(con, pipeline, key)
        entry = ExtractionEntry(
            extraction_id=record.new_id(),
            pipeline=pipeline,
            **record.partition_fields(made.partition),
            revision=record.new_id(),
            is_new=True,
            table_name="",
            rows_extracted=made.rows,
            feature_digest=made.digest,
            source_digests=record.canonical(made.sources),
            sql_digest=hashlib.sha256(sql.encode()).hexdigest(),
            seconds=made.seconds,
            run_id=run.run_id,
            made_by=run.made_by,
            made_at=datetime.now(UTC),
        )
        if known and known.feature_digest == made.digest:
            entry = replace(entry, revision=known.revision, table_name=known.table_name, is_new=False)
            if (known.source_digests, known.sql_digest) == (entry.source_digests, entry.sql_digest):
                return known
        else:
            table = ensure_table(
                con, pipeline, "features", {"partition_key": "VARCHAR", "revision": "VARCHAR"} | columns
            )
            entry = replace(entry, table_name=table)
            _insert(
                con,
                f"{quote(pipeline)}.{quote(table)}",
                f"SELECT partition_key, {literal(entry.revision)}, {quote_all(columns)} "
                f"FROM {STAGED} WHERE partition_key = {literal(key)}",
                made.rows,
                f"Pipeline {pipeline}, partition {key}: features",
            )
        record.insert(con, "extractions", entry)
    return entry


def stored_columns(con: DuckDBPyConnection, pipeline: str, table: str) -> dict[str, str]:
    """The feature columns of a stored table with their SQL types. The warehouse is the current catalog."""
    rows = con.execute(f"DESCRIBE {quote(pipeline)}.{quote(table)}").fetchall()
    return {row[0]: row[1] for row in rows if row[0] not in ("partition_key", "revision")}


def load_features(con: DuckDBPyConnection, pipeline: str, table: str, revisions: list[str]) -> None:
    """Bring stored revisions to the staging table. The warehouse is the current catalog."""
    columns = stored_columns(con, pipeline, table)
    con.execute("CREATE SCHEMA IF NOT EXISTS memory.pip_stage")
    con.execute(
        f"CREATE OR REPLACE TABLE {STAGED} AS SELECT partition_key, {quote_all(columns)} "
        f"FROM {quote(pipeline)}.{quote(table)} WHERE list_contains($revisions, revision) ORDER BY partition_key",
        {"revisions": revisions},
    )


def store_scores(
    con: DuckDBPyConnection,
    scoring: Scoring,
    scored: Scored,
    entry: ScoringEntry,
    feature_columns: dict[str, str],
    run: RunInfo,
    why: str,
) -> ScoringEntry:
    """One transaction: quarantined rows, scores, the ledger entry, and the live pointer for a champion.

    The warehouse is the current catalog.

    Raises:
        PartitionError: rows in are not rows scored plus rows quarantined; rolled back.

    """
    key, pipeline = entry.partition_key, entry.pipeline
    where = f"Pipeline {pipeline}, partition {key}"
    with transaction(con):
        if scored.rows_quarantined:
            kept = {
                "partition_key": "VARCHAR",
                "scoring_id": "VARCHAR",
                "feature_revision": "VARCHAR",
                "broken": "VARCHAR[]",
            }
            table = ensure_table(con, pipeline, "quarantine", kept | feature_columns)
            _insert(
                con,
                f"{quote(pipeline)}.{quote(table)}",
                f"SELECT partition_key, {literal(entry.scoring_id)}, {literal(entry.feature_revision or '')}, "
                f"['unseen_category'], {quote_all(feature_columns)} "
                f"FROM {STAGED} WHERE partition_key = {literal(key)} AND NOT ({scoring.admitted})",
                scored.rows_quarantined,
                f"{where}: quarantine",
            )
        columns = {"partition_key": "VARCHAR", "scoring_id": "VARCHAR"} | scoring.columns
        table = ensure_table(con, pipeline, "scores", columns)
        carried = [name for name in scoring.columns if name != "partition_key"]
        _insert(
            con,
            f"{quote(pipeline)}.{quote(table)}",
            f"SELECT partition_key, {literal(entry.scoring_id)}, {quote_all(carried)} "
            f"FROM {SCORED} WHERE partition_key = {literal(key)}",
            scored.rows_scored,
            f"{where}: scores",
        )
        if scored.rows_in != scored.rows_scored + scored.rows_quarantined:
            raise PartitionError(
                f"{where}: {scored.rows_in} rows came in, {scored.rows_scored} were scored and "
                f"{scored.rows_quarantined} quarantined; the sum must agree. Nothing was stored."
            )
        entry = replace(entry, table_name=table)
        record.insert(con, "scorings", entry)
        if entry.role == "champion":
            record.make_live(con, entry, run, why)
    return entry


def make_live(con: DuckDBPyConnection, entry: ScoringEntry, run: RunInfo, why: str) -> None:
    """Point the partition at a scoring that is stored, unless it is live already."""
    with transaction(con):
        live = record.live_scorings(con, entry.pipeline, [entry.partition_key])
        if live.get(entry.partition_key) != entry.scoring_id:
            record.make_live(con, entry, run, why)


def store_failure(con: DuckDBPyConnection, entry: ScoringEntry) -> None:
    """Write down an attempt that stored nothing else; what was live stays live."""
    with transaction(con):
        record.insert(con, "scorings", entry)


def _insert(con: DuckDBPyConnection, table: str, select: str, expected: int, what: str) -> None:
    counted = con.execute(f"INSERT INTO {table} {select}").fetchone()
    if counted is None or counted[0] != expected:
        raise PartitionError(
            f"{what}: {expected} rows were staged, {counted and counted[0]} arrived. Nothing was stored; "
            "this is a defect of pip_dagster, please report it."
        )
