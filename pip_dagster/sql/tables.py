"""Which tables a query reads, from DuckDB's parse tree."""

from __future__ import annotations

import json
from typing import Any

from pip_dagster.sql.expression import duckdb_cursor

# Table functions that read no table of the database.
_WITHOUT_TABLES = {"generate_series", "json_each", "json_tree", "range", "repeat", "unnest"}


def parse_tree(sql: str) -> dict[str, Any] | None:
    """DuckDB's tree of SELECTs; None for anything else."""
    import duckdb

    try:
        with duckdb_cursor() as con:
            row = con.execute("SELECT json_serialize_sql($1)", [sql]).fetchone()
    except duckdb.Error:
        return None
    tree = json.loads(row[0]) if row else {"error": True}
    return None if tree["error"] else tree


def tables_read(sql: str) -> frozenset[str] | None:
    """The tables that a SELECT reads, as `schema.table` in lower case; a common table expression is none.

    None where the parse tree cannot show it: the text is not one SELECT, or a function such as `query_table` names the
    table when it runs.
    """
    tree = parse_tree(sql)
    if tree is None:
        return None
    found: set[str] = set()
    waiting: list[tuple[Any, frozenset[str]]] = [(tree, frozenset())]
    while waiting:
        node, named = waiting.pop()
        if isinstance(node, list):
            waiting += [(each, named) for each in node]
        if not isinstance(node, dict) or node.get("class") == "CONSTANT":
            continue
        if _names_tables_late(node):
            return None
        if node.get("type") == "BASE_TABLE":
            found |= _names(node, named)
        if node.get("type") == "RECURSIVE_CTE_NODE":
            named |= {node.get("cte_name", "").lower()}
        for entry in (node.get("cte_map") or {}).get("map", ()):
            waiting.append((entry["value"], named))  # it sees those before it, and itself only where it is recursive
            named |= {entry["key"].lower()}
        waiting += [(each, named) for key, each in node.items() if key != "cte_map"]
    return frozenset(found)


def _names_tables_late(node: dict[str, Any]) -> bool:
    function = node.get("function") if node.get("type") == "TABLE_FUNCTION" else None
    return node.get("type") == "SHOW_REF" or bool(function and function["function_name"].lower() not in _WITHOUT_TABLES)


def _names(table: dict[str, Any], named: frozenset[str]) -> set[str]:
    """The tables that a reference may mean: in `a.b`, `a` is a schema or the catalog."""
    path = (table.get("qualified_name") or {}).get("path")  # DuckDB 2
    parts = path or [table["catalog_name"], table["schema_name"], table["table_name"]]
    parts = [part.lower() for part in parts if part]
    if len(parts) == 1:
        return set() if parts[0] in named else {f"main.{parts[0]}"}
    return (
        {f"main.{parts[1]}"} | {".".join(parts)} if parts[0] == "memory" and len(parts) == 2 else {".".join(parts[-2:])}
    )
