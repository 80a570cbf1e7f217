"""Labels show how good scores were: each evaluation of a scoring's labelled rows is kept, with its sums."""

SQL = """
-- A scoring's rows, or an arm's, with the labels that they had then. See ledger/performance.py.
CREATE TABLE ledger.evaluations (
  evaluation_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, partition_start TIMESTAMPTZ,
  partition_end TIMESTAMPTZ, scoring_id VARCHAR, basis VARCHAR, arm VARCHAR, model_name VARCHAR, model_version BIGINT,
  feature_revision VARCHAR, labels_digest VARCHAR, segments VARCHAR[], rows BIGINT, labelled BIGINT, score_psi DOUBLE,
  unlike_rest BOOLEAN, mature_at TIMESTAMPTZ, restates VARCHAR, evaluated_at TIMESTAMPTZ);
-- The figures of an evaluation: of all rows, where segment is NULL, and of each value of each segment.
CREATE TABLE ledger.performance (
  evaluation_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, scoring_id VARCHAR, segment VARCHAR,
  segment_value VARCHAR, rows BIGINT, labelled BIGINT, metrics VARCHAR[], figures DOUBLE[], counts BIGINT[],
  lows DOUBLE[], highs DOUBLE[], reweighted DOUBLE[], sums VARCHAR);
-- The newest evaluation of what is live.
CREATE VIEW ledger.live_evaluations AS
  SELECT e.*
  FROM ledger.evaluations e
  JOIN (
    SELECT l.pipeline, l.partition_key, coalesce(a.change_id, l.scoring_id) AS live_basis
    FROM ledger.live l LEFT JOIN (SELECT DISTINCT change_id FROM ledger.arms) a ON a.change_id = l.change_id
  ) l ON l.pipeline = e.pipeline AND l.partition_key = e.partition_key AND l.live_basis = e.basis
  QUALIFY row_number() OVER (
    PARTITION BY e.pipeline, e.partition_key, e.scoring_id, e.arm ORDER BY e.evaluation_id DESC) = 1;
-- One row a figure.
CREATE VIEW ledger.performance_figures AS
  SELECT e.* EXCLUDE (segments, rows, labelled), e.rows AS partition_rows, e.labelled AS partition_labelled,
         f.* EXCLUDE (evaluation_id), l.evaluation_id IS NOT NULL AS is_live
  FROM ledger.evaluations e
  JOIN (
    SELECT evaluation_id, segment, segment_value, rows, labelled, unnest(metrics) AS metric, unnest(figures) AS value,
           unnest(counts) AS n, unnest(lows) AS low, unnest(highs) AS high, unnest(reweighted) AS reweighted
    FROM ledger.performance
  ) f ON f.evaluation_id = e.evaluation_id
  LEFT JOIN (SELECT evaluation_id FROM ledger.live_evaluations) l ON l.evaluation_id = e.evaluation_id;
"""
