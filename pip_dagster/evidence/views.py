"""The views that say what is live: one that was replaced shows other rows than the tables hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pip_dagster.ledger.fault import Fault
from pip_dagster.warehouse import schema
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Those that say what is live. DuckDB 2 reads the joins of some others otherwise than the 1.5 that wrote them.
_VIEWS = """
  SELECT view_name, sql FROM duckdb_views()
  WHERE database_name = current_database() AND schema_name = 'ledger'
    AND view_name IN ('live', 'live_arms', 'partitions')
"""


def view_faults(con: DuckDBPyConnection) -> Iterator[Fault]:
    """The views that are not as the migrations create them. The warehouse is the current catalog."""
    present = dict(con.execute(_VIEWS).fetchall())
    with workspace(threads=1) as own:
        schema.ensure(own, "memory", read_only=False, new=lambda: None)
        for name, sql in sorted(own.execute(_VIEWS).fetchall()):
            if name not in present or _parsed(own, present[name]) != _parsed(own, sql):
                yield Fault(None, "ledger", f"the view ledger.{name} is not as pip_dagster created it")


def _parsed(con: DuckDBPyConnection, sql: str) -> Any:
    """The SELECT of a view, however it is written."""
    select = re.sub(r"(?is)^.*?\bAS\b", "", sql, count=1).rstrip().rstrip(";")
    found = con.execute("SELECT json_serialize_sql($sql)::VARCHAR", {"sql": select}).fetchone()
    return json.loads(found[0], object_hook=_unordered) if found else None


def _unordered(node: dict[str, Any]) -> dict[str, Any]:
    """A node without its place in the text; the columns of an EXCLUDE have no order, and DuckDB keeps none."""
    return {
        key: sorted(each, key=str) if "exclude" in key and isinstance(each, list) else each
        for key, each in node.items()
        if key != "query_location"
    }
