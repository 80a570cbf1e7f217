"""Rows of a person that an erasure or a purge took away, and a legal hold keeps: a report shows them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pip_dagster.ledger.record import dicts
from pip_dagster.sql.names import among, literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def held_rows(con: DuckDBPyConnection, pipeline: str, tokens: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Of one pipeline, by the person's keyed hashes; those of a hold that is released too, until they are removed."""
    if not tokens:
        return ()
    select = (
        "SELECT hold_id, erasure_id, "
        "(SELECT any_value(held_until) FROM ledger.erasures e WHERE e.erasure_id = r.hold_id) AS until, "
        "made_at, partition_key, split_part(table_name, '__', 1) AS kind, content AS row "
        f"FROM ledger.held_rows r WHERE pipeline = {literal(pipeline)} AND hold_id IN (SELECT hold_id FROM "
        f"ledger.held_subjects WHERE pipeline = {literal(pipeline)} AND {among('subject', tokens)}) "
        "ORDER BY partition_key, table_name, made_at"
    )
    return tuple(row | {"row": json.loads(row["row"])} for row in dicts(con.execute(select)))
