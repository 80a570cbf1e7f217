"""The warehouse's own tables and how an older file becomes one of this version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster.errors import WarehouseError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Each script takes a file from the version before it; a new one is added at the end, an old one is never changed.
# Only SQL that a DuckLake takes too: no keys, checks, sequences or indexes. Rows are inserted, never updated.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE SCHEMA ledger;
    CREATE TABLE ledger.meta (key VARCHAR, value VARCHAR);
    -- What the feature SQL gave for a partition, each time it ran; equal content names the revision that was there.
    CREATE TABLE ledger.extractions (
      extraction_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR,
      partition_start TIMESTAMPTZ, partition_end TIMESTAMPTZ,
      revision VARCHAR, is_new BOOLEAN, table_name VARCHAR, rows_extracted BIGINT, feature_digest VARCHAR,
      source_digests VARCHAR, sql_digest VARCHAR, seconds DOUBLE,
      run_id VARCHAR, made_by VARCHAR, made_at TIMESTAMPTZ);
    -- What produced each (partition, model version): one row a scoring, and one for each attempt that failed.
    CREATE TABLE ledger.scorings (
      scoring_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR,
      partition_start TIMESTAMPTZ, partition_end TIMESTAMPTZ, status VARCHAR, reason VARCHAR, role VARCHAR,
      model_name VARCHAR, model_version BIGINT, model_digest VARCHAR, manifest_digest VARCHAR,
      feature_revision VARCHAR, feature_digest VARCHAR, source_digests VARCHAR,
      code_digest VARCHAR, engine VARCHAR, device VARCHAR, device_reason VARCHAR, threads BIGINT,
      table_name VARCHAR, rows_in BIGINT, rows_scored BIGINT, rows_quarantined BIGINT, findings VARCHAR,
      mean_score DOUBLE, min_score DOUBLE, max_score DOUBLE, score_digest VARCHAR, seconds DOUBLE,
      run_id VARCHAR, made_by VARCHAR, made_at TIMESTAMPTZ);
    -- Which scoring is live, as a history: the newest change of a partition holds.
    CREATE TABLE ledger.live_changes (
      change_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, scoring_id VARCHAR,
      why VARCHAR, run_id VARCHAR, made_by VARCHAR, made_at TIMESTAMPTZ);
    -- Which of those changes have reached the published files; what is absent here is published by the next run.
    CREATE TABLE ledger.publications (change_id VARCHAR, made_at TIMESTAMPTZ);
    CREATE VIEW ledger.live AS
      SELECT pipeline, partition_key, arg_max(scoring_id, change_id) AS scoring_id, max(change_id) AS change_id,
             max(made_at) AS live_since
      FROM ledger.live_changes GROUP BY pipeline, partition_key;
    CREATE VIEW ledger.partitions AS
      SELECT s.*, l.scoring_id IS NOT NULL AS is_live
      FROM ledger.scorings s
      LEFT JOIN ledger.live l
        ON l.pipeline = s.pipeline AND l.partition_key = s.partition_key AND l.scoring_id = s.scoring_id;
    """,
    """
    -- What the expectations said: of sources beside an extraction, of features and predictions beside a scoring.
    CREATE TABLE ledger.checks (
      entry_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, section VARCHAR, expectation_id VARCHAR, type VARCHAR,
      severity VARCHAR, status VARCHAR, unexpected_count BIGINT, element_count BIGINT, unexpected_percent DOUBLE,
      observed VARCHAR, examples VARCHAR, error VARCHAR, description VARCHAR, made_at TIMESTAMPTZ);
    """,
    """
    -- Who changed what is live, or what an alias names: each entry's hash covers the hash before it (ledger/audit.py).
    CREATE TABLE ledger.audit (
      seq BIGINT, made_at TIMESTAMPTZ, actor VARCHAR, action VARCHAR, pipeline VARCHAR,
      subject VARCHAR, details VARCHAR, previous_hash VARCHAR, hash VARCHAR);
    -- The first entry vouches for the live changes that are older than the chain.
    INSERT INTO ledger.audit
      SELECT seq, made_at, actor, action, pipeline, subject, details, previous_hash, sha256(to_json({
        'action': action, 'actor': actor, 'details': details, 'made_at': epoch_us(made_at), 'pipeline': pipeline,
        'previous_hash': previous_hash, 'seq': seq, 'subject': subject
      })::VARCHAR) AS hash
      FROM (
        SELECT 1::BIGINT AS seq, now() AS made_at, 'pip_dagster' AS actor, 'audit started' AS action,
               NULL::VARCHAR AS pipeline, '{}' AS subject, '' AS previous_hash,
               to_json({'last_change_id': coalesce(max(change_id), ''), 'live_changes': count(*), 'sha256': sha256(
                 coalesce(string_agg(concat_ws('|', change_id, pipeline, partition_key, scoring_id), chr(10)
                                     ORDER BY change_id), ''))})::VARCHAR AS details
        FROM ledger.live_changes);
    """,
    """
    -- Which buckets of a live change are whose: with any row they cover all 10,000, without one all are the change's.
    CREATE TABLE ledger.arms (
      change_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, scoring_id VARCHAR, arm VARCHAR,
      low BIGINT, high BIGINT, kind VARCHAR, salt VARCHAR, unit VARCHAR);
    CREATE VIEW ledger.live_arms AS
      SELECT l.pipeline, l.partition_key, l.change_id, l.live_since, coalesce(a.scoring_id, l.scoring_id) AS scoring_id,
             coalesce(a.arm, 'champion') AS arm, a.low, a.high, a.kind, a.salt, a.unit
      FROM ledger.live l LEFT JOIN ledger.arms a ON a.change_id = l.change_id;
    -- Stops of canaries, and their going on: the newest of an alias and version holds.
    CREATE TABLE ledger.canaries (
      event_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, alias VARCHAR, model_name VARCHAR,
      model_version BIGINT, action VARCHAR, why VARCHAR, figures VARCHAR,
      run_id VARCHAR, made_by VARCHAR, made_at TIMESTAMPTZ);
    -- Predictions say their arm from here on: what was published before is published once more by the next run.
    DELETE FROM ledger.publications;
    """,
    """
    -- Made before a source's rows were declared to be all there.
    ALTER TABLE ledger.extractions ADD COLUMN provisional BOOLEAN;
    ALTER TABLE ledger.scorings ADD COLUMN provisional BOOLEAN;
    -- A digest of sources, feature SQL, declaration and model: attempts with an equal one are attempts at the same.
    ALTER TABLE ledger.scorings ADD COLUMN inputs_digest VARCHAR;
    -- What was in each stretch of a source's time, whenever a run saw it change.
    CREATE TABLE ledger.source_buckets (
      pipeline VARCHAR, source VARCHAR, bucket TIMESTAMP, rows BIGINT, total VARCHAR, xor VARCHAR, newest VARCHAR,
      columns VARCHAR, made_at TIMESTAMPTZ);
    CREATE OR REPLACE VIEW ledger.partitions AS
      SELECT s.*, l.scoring_id IS NOT NULL AS is_live
      FROM ledger.scorings s
      LEFT JOIN ledger.live l
        ON l.pipeline = s.pipeline AND l.partition_key = s.partition_key AND l.scoring_id = s.scoring_id;
    """,
    """
    -- A backfill as it was asked for, and each partition that it is done with, written in that partition's transaction.
    CREATE TABLE ledger.backfills (
      backfill_id VARCHAR, pipeline VARCHAR, partition_keys VARCHAR[], model_version BIGINT, pinned BOOLEAN,
      as_known BOOLEAN, why VARCHAR, made_by VARCHAR, made_at TIMESTAMPTZ);
    CREATE TABLE ledger.backfill_partitions (
      backfill_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, scoring_id VARCHAR, run_id VARCHAR,
      made_at TIMESTAMPTZ);
    """,
    """
    -- What the digests of SQL and declaration cover, part by part: JSON of name and digest. Older rows have none.
    ALTER TABLE ledger.extractions ADD COLUMN declared_parts VARCHAR;
    ALTER TABLE ledger.scorings ADD COLUMN declared_parts VARCHAR;
    -- Partitions a run, where that was asked for.
    ALTER TABLE ledger.backfills ADD COLUMN chunk BIGINT;
    CREATE OR REPLACE VIEW ledger.partitions AS
      SELECT s.*, l.scoring_id IS NOT NULL AS is_live
      FROM ledger.scorings s
      LEFT JOIN ledger.live l
        ON l.pipeline = s.pipeline AND l.partition_key = s.partition_key AND l.scoring_id = s.scoring_id;
    """,
)
VERSION = len(MIGRATIONS)


def ensure(con: DuckDBPyConnection, place: object, *, read_only: bool) -> None:
    """Bring the current catalog to this version, all of it in one transaction.

    Raises:
        WarehouseError: the warehouse is of a newer version, or of an older one and only opened to read.

    """
    found = version(con)
    if found == VERSION:
        return
    if found > VERSION:
        raise WarehouseError(
            f"{place} has schema version {found}, made by a newer pip_dagster; this one knows {VERSION}. Upgrade it."
        )
    if read_only:
        raise WarehouseError(
            f"{place} has schema version {found}, this pip_dagster needs {VERSION}: any run that writes migrates it."
        )
    from pip_dagster.warehouse.connect import transaction
    from pip_dagster.warehouse.tables import refresh_views

    with transaction(con):
        found = version(con)  # somebody else may have done it while this one waited for its turn
        for script in MIGRATIONS[found:]:
            con.execute(script)
        for (pipeline,) in con.execute("SELECT DISTINCT pipeline FROM ledger.scorings ORDER BY 1").fetchall():
            refresh_views(con, pipeline)
        con.execute("DELETE FROM ledger.meta WHERE key = 'schema_version'")
        con.execute("INSERT INTO ledger.meta VALUES ('schema_version', $v)", {"v": str(VERSION)})


def version(con: DuckDBPyConnection) -> int:
    """The schema version of the current catalog; 0 for an empty one."""
    from pip_dagster.warehouse.tables import is_there

    if not is_there(con, "ledger", "meta"):
        return 0
    row = con.execute("SELECT value FROM ledger.meta WHERE key = 'schema_version'").fetchone()
    return int(row[0]) if row else 0
