"""Digests in the audit become commitments, so that what is erased cannot be searched for by its digest.

A digest of few unknown bits gives them away: an erased score is found by trying all, and comparing. Now the audit holds
digests that a nonce covers too. The nonce stands beside the row that it belongs to, and an erasure replaces it.
"""

SQL = """
-- 16 random bytes as hex, outside the chain. NULL: the audit's entries of this scoring hold digests without one.
ALTER TABLE ledger.scorings ADD COLUMN nonce VARCHAR;
-- The nonce of the digests of an entry that covers the ledger's tables.
CREATE TABLE ledger.anchor_nonces (seq BIGINT, nonce VARCHAR);
-- Scorings whose row, or rows, an erasure or a migration changed, with the digest that it has since; the audit's entry
-- `rewritten` has the digest of these rows.
CREATE TABLE ledger.rewrites (rewrite_id VARCHAR, scoring_id VARCHAR, entry_digest VARCHAR);
CREATE OR REPLACE VIEW ledger.partitions AS
  SELECT s.* EXCLUDE (nonce), l.scoring_id IS NOT NULL AS is_live, l.change_id AS live_change
  FROM ledger.scorings s
  LEFT JOIN ledger.live l
    ON l.pipeline = s.pipeline AND l.partition_key = s.partition_key AND l.scoring_id = s.scoring_id;
"""
