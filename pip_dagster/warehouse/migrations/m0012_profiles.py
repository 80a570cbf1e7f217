"""Monitoring compares distributions: each scoring keeps the counts of its columns, so that no row is read again."""

SQL = """
-- A column of a scoring, by the bins of the manifest with this digest. See ledger/profiles.py.
CREATE TABLE ledger.profiles (
  scoring_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, manifest_digest VARCHAR, column_kind VARCHAR,
  name VARCHAR, rows BIGINT, counts BIGINT[], missing BIGINT, unseen BIGINT, mean DOUBLE, sd DOUBLE, gain DOUBLE,
  made_at TIMESTAMPTZ);
"""
