"""Late data: a partition scored before its sources were complete is provisional.

`inputs_digest` tells attempts at the same inputs from attempts at others, `source_buckets` holds what each stretch
of a source contained.
"""

SQL = """
-- Built before a source was declared complete.
ALTER TABLE ledger.extractions ADD COLUMN provisional BOOLEAN;
ALTER TABLE ledger.scorings ADD COLUMN provisional BOOLEAN;
-- A digest of sources, feature SQL, declaration and model: attempts with an equal one have the same inputs.
ALTER TABLE ledger.scorings ADD COLUMN inputs_digest VARCHAR;
-- The content of each stretch of a source's time, added when a run sees it change.
CREATE TABLE ledger.source_buckets (
  pipeline VARCHAR, source VARCHAR, bucket TIMESTAMP, rows BIGINT, total VARCHAR, xor VARCHAR, newest VARCHAR,
  columns VARCHAR, made_at TIMESTAMPTZ);
CREATE OR REPLACE VIEW ledger.partitions AS
  SELECT s.*, l.scoring_id IS NOT NULL AS is_live
  FROM ledger.scorings s
  LEFT JOIN ledger.live l
    ON l.pipeline = s.pipeline AND l.partition_key = s.partition_key AND l.scoring_id = s.scoring_id;
"""
