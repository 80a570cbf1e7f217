"""Rewrites scorings that the audit covers, in the open: for an erasure, a purge, a migration of texts, or
smaller blocks.

Their rows get new nonces, so that nothing in the chain shows what they were. The digests that they have since are rows
of `ledger.rewrites`, whose own digest is in an entry of the audit. What entries covered of the ledger's tables until
then is not compared any more; the next one begins again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster import clock
from pip_dagster.ledger import audit
from pip_dagster.ledger.record import dicts
from pip_dagster.ledger.rows import insert_many

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ACTION: Literal["rewritten"] = "rewritten"
RewriteKind = Literal["erasure", "purge", "migration", "blocks"]


@dataclass(frozen=True)
class _RewriteEntry:
    """One row of `ledger.rewrites`."""

    rewrite_id: str
    scoring_id: str
    entry_digest: str


def rewrite(
    con: DuckDBPyConnection,
    rewrite_id: str,
    kind: RewriteKind,
    scoring_ids: Sequence[str],
    *,
    actor: str,
) -> None:
    """Record that these scorings, or their rows, were changed. Call it inside the transaction that changed them.

    Without scorings, it records that rows of the ledger moved: a file of the warehouse was rewritten.

    Args:
        con: the warehouse is its current catalog.
        rewrite_id: of the erasure or migration; each call needs another.
        kind: why.
        scoring_ids: the changed ones.
        actor: who did it.
    """
    scorings = sorted({*scoring_ids})
    if scorings:
        nonces = {"ids": scorings, "nonces": [audit.new_nonce() for _ in scorings]}
        con.execute(
            "UPDATE ledger.scorings SET nonce = given.nonce FROM (SELECT unnest($ids) AS scoring_id, "
            "unnest($nonces) AS nonce) AS given WHERE ledger.scorings.scoring_id = given.scoring_id",
            nonces,
        )
    rows = [
        _RewriteEntry(rewrite_id, each["scoring_id"], audit.entry_digest(each))
        for each in audit.scorings_in(con, scorings)
    ]
    insert_many(con, "rewrites", rows)
    con.execute("DELETE FROM ledger.anchor_nonces")
    details = {"kind": kind, "scorings": len(rows), "sha256": _sha256((r.scoring_id, r.entry_digest) for r in rows)}
    now = audit.micros(clock.now())
    audit.append(con, [audit.Event(ACTION, now, actor, None, {"rewrite_id": rewrite_id}, details)])


@dataclass
class Rewrites:
    """All rewrites: of each id its scorings with the digests that they got."""

    of: dict[str, dict[str, str]]

    @classmethod
    def read(cls, con: DuckDBPyConnection) -> Rewrites:
        """From `ledger.rewrites`."""
        found: dict[str, dict[str, str]] = {}
        select = "SELECT rewrite_id, scoring_id, entry_digest FROM ledger.rewrites ORDER BY ALL"
        for row in dicts(con.execute(select)):
            found.setdefault(row["rewrite_id"], {})[row["scoring_id"]] = row["entry_digest"]
        return cls(found)

    def newest(self, rewrite_ids: Iterable[str]) -> dict[str, str]:
        """Scoring → the digest of its newest rewrite; the ids in the order of their entries."""
        found: dict[str, str] = {}
        for rewrite_id in rewrite_ids:
            found |= self.of.get(rewrite_id, {})
        return found

    def is_as(self, rewrite_id: str, details: Mapping[str, Any]) -> bool:
        """Whether the rows of a rewrite are those of its entry."""
        rows = sorted(self.of.get(rewrite_id, {}).items())
        return len(rows) == details["scorings"] and _sha256(rows) == details["sha256"]


def _sha256(rows: Iterable[tuple[str, str]]) -> str:
    return hashlib.sha256("\n".join("|".join(row) for row in rows).encode()).hexdigest()
