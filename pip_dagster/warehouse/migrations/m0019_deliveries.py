"""What was delivered to which target: published rows go on to other systems, and the ledger says which change is there.

A partition is pending for a target while its newest live change has no row of it here that says `delivered`.
"""

SQL = """
-- A row for each partition and target, whenever one was delivered or a delivery failed for good in a run. `declaration`
-- is a digest of what the target was declared to get. `receipt` is JSON of what else finds the rows at the target.
CREATE TABLE ledger.deliveries (
  delivery_id VARCHAR, pipeline VARCHAR, target VARCHAR, kind VARCHAR, partition_key VARCHAR, change_id VARCHAR,
  declaration VARCHAR, state VARCHAR, attempts BIGINT, rows BIGINT, digest VARCHAR, place VARCHAR, receipt VARCHAR,
  error VARCHAR, seconds DOUBLE, run_id VARCHAR, made_by VARCHAR, made_at TIMESTAMPTZ);
"""
