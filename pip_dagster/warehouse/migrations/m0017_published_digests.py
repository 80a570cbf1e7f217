"""What was published is recorded as digests, so that `audit verify` finds published rows that were altered.

Views that read one partition no longer read the live changes of all: a publication must cost the same after years.
"""

SQL = """
-- Digests of what was published: a row for each table of a partition that had rows, at each publication. The newest
-- publication of a partition holds. `file` is relative to the published folder.
CREATE TABLE ledger.published_digests (
  pipeline VARCHAR, partition_key VARCHAR, table_name VARCHAR, file VARCHAR, rows BIGINT, digest VARCHAR,
  columns_digest VARCHAR, made_at TIMESTAMPTZ);
-- The columns that a digest covers: JSON of names and types.
CREATE TABLE ledger.published_columns (columns_digest VARCHAR, columns VARCHAR);
-- Who may write the published files but not read the warehouse cannot compute a digest without it.
INSERT INTO ledger.meta SELECT 'published_secret', uuid()::VARCHAR || uuid()::VARCHAR;
CREATE OR REPLACE VIEW ledger.performance_figures AS
  SELECT e.* EXCLUDE (segments, rows, labelled), e.rows AS partition_rows, e.labelled AS partition_labelled,
         f.* EXCLUDE (evaluation_id), l.evaluation_id IS NOT NULL AS is_live
  FROM ledger.evaluations e
  JOIN (
    SELECT evaluation_id, segment, segment_value, rows, labelled, unnest(metrics) AS metric, unnest(figures) AS value,
           unnest(counts) AS n, unnest(lows) AS low, unnest(highs) AS high, unnest(reweighted) AS reweighted
    FROM ledger.performance
  ) f ON f.evaluation_id = e.evaluation_id
  LEFT JOIN (SELECT pipeline, partition_key, evaluation_id FROM ledger.live_evaluations) l
    ON l.pipeline = e.pipeline AND l.partition_key = e.partition_key AND l.evaluation_id = e.evaluation_id;
CREATE OR REPLACE VIEW ledger.graded_estimates AS
  SELECT e.*, t.truth, e.value - t.truth AS error, t.truth BETWEEN e.low AND e.high AS hit,
         CASE WHEN t.truth < e.low THEN -1 WHEN t.truth > e.high THEN 1 WHEN t.truth IS NOT NULL THEN 0 END AS side,
         t.labels_digest, t.labelled, t.mature_at, t.evaluated_at, l.scoring_id IS NOT NULL AS is_live
  FROM (
    SELECT * FROM ledger.estimates
    QUALIFY made_at = max(made_at) OVER (PARTITION BY pipeline, partition_key, scoring_id)
  ) e
  LEFT JOIN (
    SELECT pipeline, partition_key, scoring_id, metric, value AS truth, labels_digest, n AS labelled, mature_at,
           evaluated_at
    FROM ledger.performance_figures
    WHERE segment IS NULL AND value IS NOT NULL
    QUALIFY row_number() OVER (
      PARTITION BY pipeline, partition_key, scoring_id, metric ORDER BY evaluation_id DESC) = 1
  ) t ON t.pipeline = e.pipeline AND t.partition_key = e.partition_key AND t.scoring_id = e.scoring_id
    AND t.metric = e.metric
  LEFT JOIN ledger.live l
    ON l.pipeline = e.pipeline AND l.partition_key = e.partition_key AND l.scoring_id = e.scoring_id;
CREATE OR REPLACE VIEW ledger.live_drift AS
  SELECT d.* FROM ledger.drift d JOIN (
    SELECT j.pipeline, j.partition_key, max(j.judgement_id) AS judgement_id FROM ledger.judgements j JOIN ledger.live l
    ON l.pipeline = j.pipeline AND l.partition_key = j.partition_key AND l.scoring_id = j.scoring_id
    GROUP BY j.pipeline, j.partition_key) n
  ON n.pipeline = d.pipeline AND n.partition_key = d.partition_key AND n.judgement_id = d.judgement_id;
"""
