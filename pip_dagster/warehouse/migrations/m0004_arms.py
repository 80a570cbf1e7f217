"""Experiments: a live change can give shares of the rows to different scorings, and a canary can be stopped.

Predictions have an arm from here on, so the next run publishes everything again.
"""

SQL = """
-- Which scoring has which buckets of a live change: they cover all 10,000; without rows, all are the change's.
CREATE TABLE ledger.arms (
  change_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, scoring_id VARCHAR, arm VARCHAR,
  low BIGINT, high BIGINT, kind VARCHAR, salt VARCHAR, unit VARCHAR);
CREATE VIEW ledger.live_arms AS
  SELECT l.pipeline, l.partition_key, l.change_id, l.live_since, coalesce(a.scoring_id, l.scoring_id) AS scoring_id,
         coalesce(a.arm, 'champion') AS arm, a.low, a.high, a.kind, a.salt, a.unit
  FROM ledger.live l LEFT JOIN ledger.arms a ON a.change_id = l.change_id;
-- Stops and resumptions of canaries: the newest of an alias and version holds.
CREATE TABLE ledger.canaries (
  event_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, alias VARCHAR, model_name VARCHAR,
  model_version BIGINT, action VARCHAR, why VARCHAR, figures VARCHAR,
  run_id VARCHAR, made_by VARCHAR, made_at TIMESTAMPTZ);
-- Predictions have an arm from here on: the next run publishes everything again.
DELETE FROM ledger.publications;
"""
