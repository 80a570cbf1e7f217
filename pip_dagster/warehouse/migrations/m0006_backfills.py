"""A backfill is recorded as requested, with the partitions it has finished, so that it can be resumed."""

SQL = """
-- A backfill as requested, and each partition that it has finished, written in that partition's transaction.
CREATE TABLE ledger.backfills (
  backfill_id VARCHAR, pipeline VARCHAR, partition_keys VARCHAR[], model_version BIGINT, pinned BOOLEAN,
  as_known BOOLEAN, why VARCHAR, made_by VARCHAR, made_at TIMESTAMPTZ);
CREATE TABLE ledger.backfill_partitions (
  backfill_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, scoring_id VARCHAR, run_id VARCHAR,
  made_at TIMESTAMPTZ);
"""
