"""A scoring says on what cluster it was computed: many machines give the same scores at other costs."""

SQL = """
-- The cluster's software, such as 'ray 2.60.0', and how many tasks on how many of its nodes. NULL: the run's process.
ALTER TABLE ledger.scorings ADD COLUMN cluster VARCHAR;
ALTER TABLE ledger.scorings ADD COLUMN tasks BIGINT;
ALTER TABLE ledger.scorings ADD COLUMN nodes BIGINT;
CREATE OR REPLACE VIEW ledger.partitions AS
  SELECT s.*, l.scoring_id IS NOT NULL AS is_live, l.change_id AS live_change
  FROM ledger.scorings s
  LEFT JOIN ledger.live l
    ON l.pipeline = s.pipeline AND l.partition_key = s.partition_key AND l.scoring_id = s.scoring_id;
"""
