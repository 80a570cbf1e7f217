"""Contents get a last day: what is purged says so in columns, and rows under a legal hold are kept aside."""

SQL = """
-- The purge that removed the contents, and when; NULL: they are there. Numbers of rows stay, digests do not.
ALTER TABLE ledger.extractions ADD COLUMN purged_by VARCHAR;
ALTER TABLE ledger.extractions ADD COLUMN purged_at TIMESTAMPTZ;
ALTER TABLE ledger.scorings ADD COLUMN purged_by VARCHAR;
ALTER TABLE ledger.scorings ADD COLUMN purged_at TIMESTAMPTZ;
-- How long the process had waited for the warehouse since the run began or stored scorings before.
ALTER TABLE ledger.scorings ADD COLUMN lock_seconds DOUBLE;
-- By which column a person was erased: by another one, nobody would be recognised.
ALTER TABLE ledger.suppressions ADD COLUMN subject_column VARCHAR;
-- Rows that an erasure or a purge took out of a pipeline's table and did not remove, since their subject is on hold.
CREATE TABLE ledger.held_rows (
  hold_id VARCHAR, erasure_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, table_name VARCHAR, content VARCHAR,
  made_at TIMESTAMPTZ);
-- Who is on hold: keyed hashes of a subject, and of what stands for it in stored rows. The hold is in ledger.erasures.
CREATE TABLE ledger.held_subjects (
  hold_id VARCHAR, pipeline VARCHAR, subject VARCHAR, key_version VARCHAR, made_at TIMESTAMPTZ);
CREATE OR REPLACE VIEW ledger.partitions AS
  SELECT s.* EXCLUDE (nonce), l.scoring_id IS NOT NULL AS is_live, l.change_id AS live_change
  FROM ledger.scorings s
  LEFT JOIN ledger.live l
    ON l.pipeline = s.pipeline AND l.partition_key = s.partition_key AND l.scoring_id = s.scoring_id;
"""
