"""Lineage is sent to a receiver once: what was sent is recorded, so that one that was away gets the rest later.

Ids alone do not say it: the id of an entry is older than its commit, and another process may commit an older one later.
"""

SQL = """
-- Which extractions, scorings and live changes a destination has got.
CREATE TABLE ledger.lineage_emissions (destination VARCHAR, pipeline VARCHAR, entry_id VARCHAR, made_at TIMESTAMPTZ);
"""
