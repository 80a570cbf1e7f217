"""Performance is estimated before labels arrive, and each estimate is compared with the labels afterwards."""

SQL = """
-- What estimates are made with, fitted on mature labels of one version. See ledger/calibrators.py.
CREATE TABLE ledger.calibrators (
  digest VARCHAR, pipeline VARCHAR, manifest_digest VARCHAR, kind VARCHAR, first_partition VARCHAR,
  last_partition VARCHAR, last_end TIMESTAMPTZ, partitions BIGINT, labels_digest VARCHAR, rows BIGINT, positives BIGINT,
  classes BIGINT[], segments VARCHAR[], coefficients DOUBLE[], covariances DOUBLE[], knots DOUBLE[],
  curve_rows BIGINT[], curve_positives BIGINT[], edges DOUBLE[], bin_rows BIGINT[], losses VARCHAR[], means DOUBLE[],
  variances DOUBLE[], metrics VARCHAR[], spreads DOUBLE[], made_at TIMESTAMPTZ);
-- What a metric of a scoring was expected to be; or, with an empty metric, why nothing could be estimated.
CREATE TABLE ledger.estimates (
  estimate_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, scoring_id VARCHAR, manifest_digest VARCHAR,
  model_version BIGINT, rows BIGINT, metric VARCHAR, value DOUBLE, low DOUBLE, high DOUBLE, calibrator_digest VARCHAR,
  reason VARCHAR, made_at TIMESTAMPTZ);
-- The newest estimates of each scoring, beside what its labels showed. The figures count from `mature_at`.
CREATE VIEW ledger.graded_estimates AS
  SELECT e.*, t.truth, e.value - t.truth AS error, t.truth BETWEEN e.low AND e.high AS hit,
         CASE WHEN t.truth < e.low THEN -1 WHEN t.truth > e.high THEN 1 WHEN t.truth IS NOT NULL THEN 0 END AS side,
         t.labels_digest, t.labelled, t.mature_at, t.evaluated_at, l.scoring_id IS NOT NULL AS is_live
  FROM (
    SELECT * FROM ledger.estimates
    QUALIFY made_at = max(made_at) OVER (PARTITION BY pipeline, scoring_id)
  ) e
  LEFT JOIN (
    SELECT pipeline, scoring_id, metric, value AS truth, labels_digest, n AS labelled, mature_at, evaluated_at
    FROM ledger.performance_figures
    WHERE segment IS NULL AND value IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY pipeline, scoring_id, metric ORDER BY evaluation_id DESC) = 1
  ) t ON t.pipeline = e.pipeline AND t.scoring_id = e.scoring_id AND t.metric = e.metric
  LEFT JOIN ledger.live l
    ON l.pipeline = e.pipeline AND l.partition_key = e.partition_key AND l.scoring_id = e.scoring_id;
"""
