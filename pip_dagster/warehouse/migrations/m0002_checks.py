"""Data quality: the outcome of each expectation is recorded beside the extraction or scoring that it judges."""

SQL = """
-- Outcomes of expectations: on sources beside an extraction, on features and predictions beside a scoring.
CREATE TABLE ledger.checks (
  entry_id VARCHAR, pipeline VARCHAR, partition_key VARCHAR, section VARCHAR, expectation_id VARCHAR, type VARCHAR,
  severity VARCHAR, status VARCHAR, unexpected_count BIGINT, element_count BIGINT, unexpected_percent DOUBLE,
  observed VARCHAR, examples VARCHAR, error VARCHAR, description VARCHAR, made_at TIMESTAMPTZ);
"""
