"""The plan names the part of a declaration that changed, not only that the declaration did."""

SQL = """
-- What the digests of SQL and declaration cover, part by part: JSON of name and digest. Older rows have none.
ALTER TABLE ledger.extractions ADD COLUMN declared_parts VARCHAR;
ALTER TABLE ledger.scorings ADD COLUMN declared_parts VARCHAR;
-- Partitions a run, if requested.
ALTER TABLE ledger.backfills ADD COLUMN chunk BIGINT;
CREATE OR REPLACE VIEW ledger.partitions AS
  SELECT s.*, l.scoring_id IS NOT NULL AS is_live
  FROM ledger.scorings s
  LEFT JOIN ledger.live l
    ON l.pipeline = s.pipeline AND l.partition_key = s.partition_key AND l.scoring_id = s.scoring_id;
"""
