"""An alarm has a state with a history, so that it is sent once, silenced with a reason, and resolved."""

SQL = """
-- One row whenever an alarm changes; the newest by `sequence` is its state. See ledger/alarms.py.
CREATE TABLE ledger.alarms (
  event_id VARCHAR, pipeline VARCHAR, alarm_id VARCHAR, sequence BIGINT, event VARCHAR, rule VARCHAR, subject VARCHAR,
  scope VARCHAR, weight DOUBLE, state VARCHAR, severity VARCHAR, since VARCHAR, partition_key VARCHAR,
  scoring_id VARCHAR, partitions BIGINT, value DOUBLE, threshold DOUBLE, chance DOUBLE, rows BIGINT, cause VARCHAR,
  command VARCHAR, good VARCHAR[], quiet BOOLEAN, made_at TIMESTAMPTZ, made_by VARCHAR, reason VARCHAR);
CREATE VIEW ledger.alarm_states AS
  SELECT * FROM ledger.alarms QUALIFY row_number() OVER (PARTITION BY alarm_id ORDER BY sequence DESC) = 1;
-- The newest partition that a rule judged: what it finds of an older one changes no alarm.
CREATE TABLE ledger.alarm_marks (
  pipeline VARCHAR, event VARCHAR, rule VARCHAR, partition_key VARCHAR, made_at TIMESTAMPTZ);
-- `until`: when it ends by itself. A row with `ends` ends the silence with this id.
CREATE TABLE ledger.silences (
  silence_id VARCHAR, pipeline VARCHAR, alarm_id VARCHAR, event VARCHAR, rule VARCHAR, subject VARCHAR,
  until TIMESTAMPTZ, ends VARCHAR, reason VARCHAR, made_by VARCHAR, made_at TIMESTAMPTZ);
-- What was sent of an alarm, written after it reached its destination.
CREATE TABLE ledger.alarm_deliveries (
  pipeline VARCHAR, alarm_id VARCHAR, sequence BIGINT, kind VARCHAR, destination VARCHAR, made_at TIMESTAMPTZ);
-- A retraining that was requested, and what became of it: a row for each.
CREATE TABLE ledger.retrains (
  retrain_id VARCHAR, pipeline VARCHAR, state VARCHAR, alarm_ids VARCHAR[], attempt BIGINT, target VARCHAR,
  exit_code BIGINT, run_id VARCHAR, host VARCHAR, made_at TIMESTAMPTZ, made_by VARCHAR);
"""
