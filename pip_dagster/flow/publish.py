"""Storing a partition: each step one transaction, so that a kill leaves it wholly old or wholly new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pip_dagster.errors import OvertakenError, PartitionError
from pip_dagster.flow.explain import Explanation, store_reasons
from pip_dagster.flow.extract import Extract
from pip_dagster.flow.guard import INTEGERS
from pip_dagster.flow.query import STAGED
from pip_dagster.flow.score import SCORED, Scored, Scoring
from pip_dagster.flow.validate import BROKEN
from pip_dagster.ledger import record
from pip_dagster.ledger.checks import CheckEntry, insert_checks, split_check
from pip_dagster.ledger.record import ExtractionEntry, RunInfo, ScoringEntry
from pip_dagster.warehouse.connect import transaction
from pip_dagster.warehouse.names import literal, quote, quote_all
from pip_dagster.warehouse.tables import ensure_table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.pipeline import Pipeline
    from pip_dagster.spec import PipelineSpec


def store_features(
    con: DuckDBPyConnection, pipeline: Pipeline, columns: dict[str, str], made: Extract, run: RunInfo
) -> ExtractionEntry:
    """Keep a partition's staged features as a new revision, unless the newest one has the same content.

    The warehouse is the current catalog.

    Raises:
        PartitionError: another number of rows arrived than was staged; rolled back.
        OvertakenError: another process stored features of the partition meanwhile; rolled back.

    """
    name, key = pipeline.spec.name, made.partition.key
    with transaction(con, late=True) as turn:
        known = record.latest_extraction(con, name, key)
        entry = ExtractionEntry(
            extraction_id=record.new_id(),
            pipeline=name,
            **record.partition_fields(made.partition),
            revision=record.new_id(),
            is_new=True,
            table_name="",
            rows_extracted=made.rows,
            feature_digest=made.digest,
            source_digests=record.canonical(made.sources),
            sql_digest=pipeline.sql_digest,
            seconds=made.seconds,
            run_id=run.run_id,
            made_by=run.made_by,
            made_at=datetime.now(UTC),
            provisional=made.provisional,
            declared_parts=pipeline.feature_parts,
        )
        if known and known.feature_digest == made.digest:
            entry = replace(entry, revision=known.revision, table_name=known.table_name, is_new=False)
            same = (known.source_digests, known.sql_digest) == (entry.source_digests, entry.sql_digest)
            if same and bool(known.provisional) == entry.provisional:
                return known
        else:  # rows first, since they take long
            table = ensure_table(con, name, "features", {"partition_key": "VARCHAR", "revision": "VARCHAR"} | columns)
            entry = replace(entry, table_name=table)
            _insert(
                con,
                f"{quote(name)}.{quote(table)}",
                f"SELECT partition_key, {literal(entry.revision)}, {quote_all(columns)} "
                f"FROM {STAGED} WHERE partition_key = {literal(key)}",
                made.rows,
                f"Pipeline {name}, partition {key}: features",
            )
        if turn.is_shared and record.latest_extraction(turn.take(), name, key) != known:
            raise OvertakenError(f"Pipeline {name}, partition {key}: another run stored its features meanwhile.")
        record.insert(con, "extractions", entry)
        insert_checks(con, [CheckEntry.of(verdict, entry.extraction_id, name, key) for verdict in made.verdicts])
    return entry


def stored_columns(con: DuckDBPyConnection, pipeline: str, table: str) -> dict[str, str]:
    """The feature columns of a stored table with their SQL types. The warehouse is the current catalog."""
    rows = con.execute(f"DESCRIBE {quote(pipeline)}.{quote(table)}").fetchall()
    return {row[0]: row[1] for row in rows if row[0] not in ("partition_key", "revision")}


def load_features(con: DuckDBPyConnection, pipeline: str, table: str, revisions: list[str]) -> None:
    """Bring stored revisions to the staging table. The warehouse is the current catalog."""
    columns = stored_columns(con, pipeline, table)
    con.execute("CREATE SCHEMA IF NOT EXISTS memory.pip_stage")
    # A literal equality skips the row groups of other revisions; one partition's rows need no sorting.
    listed = ", ".join(map(literal, revisions))
    wanted = f"revision = {listed}" if len(revisions) == 1 else f"revision IN ({listed}) ORDER BY partition_key"
    con.execute(
        f"CREATE OR REPLACE TABLE {STAGED} AS SELECT partition_key, {quote_all(columns)} "
        f"FROM {quote(pipeline)}.{quote(table)} WHERE {wanted}"
    )


def store_scores(
    con: DuckDBPyConnection,
    scoring: Scoring,
    scored: Scored,
    entry: ScoringEntry,
    feature_columns: dict[str, str],
    row_key: RowKey,
    checks: Sequence[CheckEntry],
    run: RunInfo,
    reasons: Explanation | None = None,
    pending: str | None = None,
) -> ScoringEntry:
    """One transaction: quarantine, scores, reason codes, ledger entry, checks, and the live pointer of a champion.

    A blocked scoring is kept in the same way, but is not made live. `pending`: what is still to be decided of its arms.

    The warehouse is the current catalog.

    Raises:
        PartitionError: rows in are not rows scored plus rows quarantined; rolled back.

    """
    key, pipeline = entry.partition_key, entry.pipeline
    where = f"Pipeline {pipeline}, partition {key}"
    with transaction(con, late=True) as turn:
        if scored.rows_quarantined:
            _quarantine(con, entry, scored.rows_quarantined, feature_columns, row_key.key)
        columns = {"partition_key": "VARCHAR", "scoring_id": "VARCHAR"} | scoring.columns
        _check_key_types(con, pipeline, {name: scoring.columns[name] for name in row_key.kept})
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
        # A partition blocked for its quarantine has rows that are neither.
        if entry.status == "scored" and scored.rows_in != scored.rows_scored + scored.rows_quarantined:
            raise PartitionError(
                f"{where}: {scored.rows_in} rows came in, {scored.rows_scored} were scored and "
                f"{scored.rows_quarantined} quarantined; the sum must agree. Nothing was stored."
            )
        entry = replace(entry, table_name=table)
        record.insert(con, "scorings", entry)
        insert_checks(con, checks)
        if reasons:
            store_reasons(con, reasons, entry)
        if entry.role == "champion" and entry.status == "scored":
            why = f"{run.why or 'scored'}; {pending}" if pending else run.why or "scored"
            change_id = record.make_live(con, entry, run, why, committed=turn.take())
            insert_checks(con, [_pending(entry, change_id, pending)] if pending else [])
            record.note_backfill(con, entry, run)
    return entry


@dataclass(frozen=True)
class RowKey:
    """The columns that name a row, and those whose type must stay what it was: they and the unit of a split."""

    key: tuple[str, ...]
    kept: tuple[str, ...]


def row_key(spec: PipelineSpec) -> RowKey:
    """The key of a pipeline's scored rows."""
    return RowKey(spec.features.key, tuple(dict.fromkeys((*spec.features.key, *spec.unit))))


def _pending(entry: ScoringEntry, change_id: str, text: str) -> CheckEntry:
    return split_check(entry.pipeline, entry.partition_key, change_id, "arms", passed=False, observed=text)


def _check_key_types(con: DuckDBPyConnection, pipeline: str, key: dict[str, str]) -> None:
    """Refuse a key or unit of another type than stored rows have: beside them, in one view, it could not be told apart.

    Raises:
        PartitionError: names both types. Whole numbers may grow wider or narrower.

    """
    whole = INTEGERS - {"UHUGEINT"}  # beside a signed type it becomes a DOUBLE
    stored = con.execute(
        "SELECT DISTINCT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() "
        "AND schema_name = $pipeline AND starts_with(table_name, 'scores__') AND list_contains($names, column_name)",
        {"pipeline": pipeline, "names": list(key)},
    ).fetchall()
    for name, kind in stored:
        if kind != key[name] and not {kind, key[name]} <= whole:
            raise PartitionError(
                f"Pipeline {pipeline}: {name!r} of key or unit is {key[name]}, in the stored scores it is {kind}. "
                f"Cast it to {kind} in the feature SQL, or give the pipeline another name."
            )


def _quarantine(
    con: DuckDBPyConnection, entry: ScoringEntry, rows: int, feature_columns: dict[str, str], row_key: Sequence[str]
) -> None:
    """Keep the rows of the partition that are apart, whole, each with every reason."""
    key, pipeline = entry.partition_key, entry.pipeline
    kept = dict.fromkeys(("partition_key", "scoring_id", "feature_revision"), "VARCHAR")
    kept |= {"broken": "VARCHAR[]", "row_key": "VARCHAR"}
    table = ensure_table(con, pipeline, "quarantine", kept | feature_columns)
    named = ", ".join(f"{quote(name)} := {quote(name)}::VARCHAR" for name in row_key)
    _insert(
        con,
        f"{quote(pipeline)}.{quote(table)}",
        f"SELECT partition_key, {literal(entry.scoring_id)}, {literal(entry.feature_revision or '')}, reasons, "
        f"to_json(struct_pack({named}))::VARCHAR, {quote_all(feature_columns)} "
        f"FROM {STAGED} s JOIN (SELECT row_id, list(DISTINCT reason ORDER BY reason) AS reasons FROM {BROKEN} "
        f"GROUP BY row_id) b ON b.row_id = s.rowid WHERE partition_key = {literal(key)}",
        rows,
        f"Pipeline {pipeline}, partition {key}: quarantine",
    )


def make_live(con: DuckDBPyConnection, entry: ScoringEntry, run: RunInfo, why: str, pending: str | None = None) -> None:
    """Point the partition at a scoring that is stored, unless it is live already; its arms then stay as they are.

    One that is asked for by version is said to be so even then, else the next plan would undo it.
    """
    with transaction(con):
        live, said = record.live_change(con, entry.pipeline, entry.partition_key) or (None, "")
        why = run.why or why
        asked = run.why.startswith(record.DELIBERATE) and not said.startswith(run.why)
        if live != entry.scoring_id or asked:
            change_id = record.make_live(con, entry, run, f"{why}; {pending}" if pending else why)
            insert_checks(con, [_pending(entry, change_id, pending)] if pending else [])
        record.note_backfill(con, entry, run)


def store_failure(con: DuckDBPyConnection, entry: ScoringEntry, checks: Sequence[CheckEntry] = ()) -> None:
    """Write down an attempt that stored no scores; what was live stays live."""
    with transaction(con, late=True):
        record.insert(con, "scorings", entry)
        insert_checks(con, checks)


def _insert(con: DuckDBPyConnection, table: str, select: str, expected: int, what: str) -> None:
    counted = con.execute(f"INSERT INTO {table} {select}").fetchone()
    if counted is None or counted[0] != expected:
        raise PartitionError(
            f"{what}: {expected} rows were staged, {counted and counted[0]} arrived. Nothing was stored; "
            "this is a defect of pip_dagster, please report it."
        )
