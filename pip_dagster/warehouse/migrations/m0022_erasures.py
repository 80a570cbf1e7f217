"""People can be forgotten, and contents get a last day: what was requested, how far it is, and what stays away."""

SQL = """
-- What was requested: `erase` a subject, `purge` contents that are older than their clock allows, or `hold` a subject's
-- rows for a legal reason. The newest row of an id holds. `state`: requested, running, done, held, released.
-- `certificate` is JSON, signed where the project has a key.
CREATE TABLE ledger.erasures (
  erasure_id VARCHAR, kind VARCHAR, pipelines VARCHAR[], state VARCHAR, why VARCHAR, ground VARCHAR, asked_by VARCHAR,
  received_at TIMESTAMPTZ, held_until TIMESTAMPTZ, content_before TIMESTAMPTZ, certificate VARCHAR, made_by VARCHAR,
  made_at TIMESTAMPTZ);
-- Each place that an erasure has finished: rows before, removed and after, by which method, and what verified it.
CREATE TABLE ledger.erasure_steps (
  erasure_id VARCHAR, pipeline VARCHAR, place VARCHAR, method VARCHAR, rows_before BIGINT, rows_removed BIGINT,
  rows_after BIGINT, verified VARCHAR, remains VARCHAR, remains_until TIMESTAMPTZ, made_at TIMESTAMPTZ);
-- Who must not return: a keyed hash of each subject, by the pipeline whose domain it has and the version of the secret.
CREATE TABLE ledger.suppressions (
  erasure_id VARCHAR, pipeline VARCHAR, subject VARCHAR, key_version VARCHAR, made_at TIMESTAMPTZ);
-- What an erasure took from a partition: replay and lineage say it.
CREATE TABLE ledger.erased_partitions (
  erasure_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, scoring_id VARCHAR, feature_revision VARCHAR,
  rows_removed BIGINT, made_at TIMESTAMPTZ);
"""
