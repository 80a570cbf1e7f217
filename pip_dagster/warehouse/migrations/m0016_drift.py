"""Drift is kept as it was judged, by what it was computed from; and segments have profiles of their own."""

SQL = """
-- The column whose value the rows have, and the value; NULL for all rows.
ALTER TABLE ledger.profiles ADD COLUMN segment VARCHAR;
ALTER TABLE ledger.profiles ADD COLUMN segment_value VARCHAR;
-- A live partition judged. basis: a digest of the rules and of the scorings whose profiles were compared.
CREATE TABLE ledger.judgements (
  judgement_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, scoring_id VARCHAR, model_version BIGINT,
  manifest_digest VARCHAR, basis VARCHAR, columns BIGINT, in_alarm BIGINT, max_psi DOUBLE, judged_at TIMESTAMPTZ);
-- A column of it, in a window, against a reference. See docs/monitoring.md.
CREATE TABLE ledger.drift (
  judgement_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, scoring_id VARCHAR, model_version BIGINT,
  manifest_digest VARCHAR, column_kind VARCHAR, name VARCHAR, segment VARCHAR, segment_value VARCHAR, gain DOUBLE,
  partitions BIGINT, first_partition VARCHAR, reference VARCHAR, rows BIGINT, psi DOUBLE, excess DOUBLE,
  distance DOUBLE, p_rows DOUBLE, shift DOUBLE, missing DOUBLE, unseen DOUBLE, state VARCHAR, rule VARCHAR, p DOUBLE,
  threshold DOUBLE, share_bin VARCHAR, share_before DOUBLE, share_now DOUBLE, judged_at TIMESTAMPTZ);
-- The newest judgement of each scoring that is live.
CREATE VIEW ledger.live_drift AS
  SELECT d.* FROM ledger.drift d SEMI JOIN (
    SELECT max(j.judgement_id) AS judgement_id FROM ledger.judgements j JOIN ledger.live l
    ON l.pipeline = j.pipeline AND l.partition_key = j.partition_key AND l.scoring_id = j.scoring_id
    GROUP BY j.pipeline, j.partition_key) n ON n.judgement_id = d.judgement_id;
"""
