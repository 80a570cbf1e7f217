"""The ledger: what the feature SQL returned, what was scored by which version, and which scoring is live."""

SQL = """
CREATE SCHEMA ledger;
CREATE TABLE ledger.meta (key VARCHAR, value VARCHAR);
-- What the feature SQL returned for a partition, each time it ran; equal content has one revision.
CREATE TABLE ledger.extractions (
  extraction_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR,
  partition_start TIMESTAMPTZ, partition_end TIMESTAMPTZ,
  revision VARCHAR, is_new BOOLEAN, table_name VARCHAR, rows_extracted BIGINT, feature_digest VARCHAR,
  source_digests VARCHAR, sql_digest VARCHAR, seconds DOUBLE,
  run_id VARCHAR, made_by VARCHAR, made_at TIMESTAMPTZ);
-- What produced each (partition, model version): one row for each scoring and for each failed attempt.
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
-- Which of those changes have reached the published files; the next run publishes those that are absent here.
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
"""
