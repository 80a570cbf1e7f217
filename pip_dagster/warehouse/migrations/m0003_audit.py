"""Live changes, promotions and rollbacks become a chain of hashes.

Each entry covers the hash of the one before it. The first entry vouches for the live changes that are older than
the chain.
"""

SQL = """
-- Who changed what is live, or what an alias names: each entry's hash covers the hash before it (ledger/audit.py).
CREATE TABLE ledger.audit (
  seq BIGINT, made_at TIMESTAMPTZ, actor VARCHAR, action VARCHAR, pipeline VARCHAR,
  subject VARCHAR, details VARCHAR, previous_hash VARCHAR, hash VARCHAR);
-- The first entry vouches for the live changes that are older than the chain.
INSERT INTO ledger.audit
  SELECT seq, made_at, actor, action, pipeline, subject, details, previous_hash, sha256(to_json({
    'action': action, 'actor': actor, 'details': details, 'made_at': epoch_us(made_at), 'pipeline': pipeline,
    'previous_hash': previous_hash, 'seq': seq, 'subject': subject
  })::VARCHAR) AS hash
  FROM (
    SELECT 1::BIGINT AS seq, now() AS made_at, 'pip_dagster' AS actor, 'audit started' AS action,
           NULL::VARCHAR AS pipeline, '{}' AS subject, '' AS previous_hash,
           to_json({'last_change_id': coalesce(max(change_id), ''), 'live_changes': count(*), 'sha256': sha256(
             coalesce(string_agg(concat_ws('|', change_id, pipeline, partition_key, scoring_id), chr(10)
                                 ORDER BY change_id), ''))})::VARCHAR AS details
    FROM ledger.live_changes);
"""
