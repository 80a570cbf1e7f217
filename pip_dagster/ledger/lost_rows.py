"""Which scorings lost rows to an erasure, and with them what monitoring had found of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def lost_rows(con: DuckDBPyConnection, pipeline: str) -> dict[str, str]:
    """Scoring → the newest erasure that removed rows of it. The warehouse is the current catalog."""
    rows = con.execute(
        "SELECT scoring_id, max(erasure_id) FROM ledger.erased_partitions "
        f"WHERE pipeline = {literal(pipeline)} AND scoring_id IS NOT NULL GROUP BY scoring_id"
    ).fetchall()
    return dict(rows)
