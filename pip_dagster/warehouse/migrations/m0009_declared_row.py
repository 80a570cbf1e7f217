"""A replay decides by what was declared when a partition was scored, not by what is declared now."""

SQL = """
-- The key's columns and the decisions, each [name, SQL] in order, as declared at the time: JSON. Older rows have none.
ALTER TABLE ledger.scorings ADD COLUMN declared_row VARCHAR;
CREATE OR REPLACE VIEW ledger.partitions AS
  SELECT s.*, l.scoring_id IS NOT NULL AS is_live
  FROM ledger.scorings s
  LEFT JOIN ledger.live l
    ON l.pipeline = s.pipeline AND l.partition_key = s.partition_key AND l.scoring_id = s.scoring_id;
"""
