"""The SQL of a view as it is meant, so that what two versions of DuckDB wrote can be compared."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def parsed(con: DuckDBPyConnection, sql: str) -> Any:
    """The names that a view gives its columns and its SELECT, however it is written; the text of what is no view.

    Compare only what the same connection parsed: versions of DuckDB parse differently. 1 writes true as a cast.
    """
    head, _, select = re.sub(r"(?i)\bAS\b", "\0", sql, count=1).partition("\0")
    select = select.rstrip().rstrip(";")
    select = re.sub(r"CAST\('([tf])' AS BOOLEAN\)", lambda cast: {"t": "true", "f": "false"}[cast[1]], select)
    found = con.execute("SELECT json_serialize_sql($sql)::VARCHAR", {"sql": select}).fetchone()
    tree = json.loads(found[0], object_hook=_unordered) if found else {"error": True}
    return sql if tree["error"] else (head.partition("(")[2].strip(), tree)


def _unordered(node: dict[str, Any]) -> dict[str, Any]:
    """A node without its place in the text; the columns of an EXCLUDE have no order, and DuckDB keeps none."""
    return {
        key: sorted(each, key=str) if "exclude" in key and isinstance(each, list) else each
        for key, each in node.items()
        if key not in ("query_location", "query_location_length")
    }
