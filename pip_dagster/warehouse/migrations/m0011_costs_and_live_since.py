"""What a partition cost is recorded, and `status` can tell a failed attempt from one that was corrected since."""

SQL = """
-- A partition's share of the processor's seconds, and the most memory, in bytes, that its process had taken by then.
-- Older rows have none.
ALTER TABLE ledger.extractions ADD COLUMN cpu_seconds DOUBLE;
ALTER TABLE ledger.extractions ADD COLUMN peak_memory BIGINT;
ALTER TABLE ledger.scorings ADD COLUMN cpu_seconds DOUBLE;
ALTER TABLE ledger.scorings ADD COLUMN peak_memory BIGINT;
-- The change that made a scoring live: an attempt before it is history.
CREATE OR REPLACE VIEW ledger.partitions AS
  SELECT s.*, l.scoring_id IS NOT NULL AS is_live, l.change_id AS live_change
  FROM ledger.scorings s
  LEFT JOIN ledger.live l
    ON l.pipeline = s.pipeline AND l.partition_key = s.partition_key AND l.scoring_id = s.scoring_id;
"""
