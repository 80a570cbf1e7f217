"""The columns that a query gives, from DuckDB's parse tree: without its tables, which may not exist yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pip_dagster.sql.expression import Refused, nodes
from pip_dagster.sql.tables import statement_tree

# Of an expression without an alias, whose column DuckDB names by its text: such a name has signs that no word has.
UNNAMED = ""

Columns = list[str] | None  # None: not known without the tables
Tables = Mapping[str, Columns]  # by name, in lower case


def output_columns(sql: str) -> frozenset[str] | None:
    """The names in lower case, with `UNNAMED` for expressions without one.

    None where they depend on a table, as with `SELECT *` of one, or the tree does not show them.
    """
    try:
        found = _of_query(statement_tree(sql)["node"], {})
    except Refused:
        return None
    return None if found is None else frozenset(found)


def columns_behind(sql: str, names: Iterable[str]) -> frozenset[str]:
    """These columns of a query's result and those, of its tables too, that it computes them from, in lower case.

    A column counts by its name, wherever it is: rather one too many than one too few.
    """
    found = {name.lower() for name in names}
    try:
        tree = list(nodes(statement_tree(sql)))
    except Refused:
        return frozenset(found)
    items = [item for node in tree if node.get("type") == "SELECT_NODE" for item in node["select_list"]]
    before = 0
    while before < len(found):
        before = len(found)
        for item in items:
            own = item.get("alias") or (item.get("column_names") or [""])[-1]
            if str(own).lower() in found:
                read = (node["column_names"][-1] for node in nodes(item) if node.get("class") == "COLUMN_REF")
                found |= {str(name).lower() for name in read}
    return frozenset(found)


def _of_query(node: Mapping[str, Any], tables: Tables) -> Columns:
    known = dict(tables)
    for entry in (node.get("cte_map") or {}).get("map", ()):
        value = entry["value"]
        query = value.get("query_node") or value["query"]["node"]  # DuckDB 2, 1
        known[entry["key"].lower()] = _renamed(_of_query(query, known), value.get("aliases"))
    kind = node["type"]
    if kind == "SELECT_NODE":
        return _of_select(node, known)
    if kind == "RECURSIVE_CTE_NODE":
        return _of_query(node["left"], known)
    if kind == "SET_OPERATION_NODE":
        parts = [_of_query(each, known) for each in node.get("children") or (node["left"], node["right"])]
        return _all(parts) if node["setop_type"] == "UNION_BY_NAME" else parts[0]
    return None


def _of_select(node: Mapping[str, Any], tables: Tables) -> Columns:
    relations = _relations(node["from_table"], tables)
    return _all([_of_expression(each, relations) for each in node["select_list"]])


def _of_expression(item: Mapping[str, Any], relations: Tables) -> Columns:
    if item.get("alias"):
        return [item["alias"].lower()]
    kind = item["class"]
    if kind == "COLUMN_REF":
        return [item["column_names"][-1].lower()]
    if kind == "STAR":
        return _of_star(item, relations)
    is_unnest = str(item.get("function_name")).lower() == "unnest"  # of a struct it gives the fields
    return None if is_unnest else [UNNAMED]


def _of_star(star: Mapping[str, Any], relations: Tables) -> Columns:
    if star.get("columns") or star.get("expr"):  # COLUMNS(…)
        return None
    of = str(star.get("relation_name") or "").lower()
    found = relations.get(of) if of else _all([*relations.values()])
    if found is None:
        return None
    excluded = {each.lower() for each in star.get("exclude_list") or () if isinstance(each, str)}
    renamed = [str(each["value"]).lower() for each in star.get("rename_list") or ()]
    return [name for name in found if name not in excluded] + renamed


def _relations(table: Mapping[str, Any], tables: Tables) -> dict[str, Columns]:
    kind = table["type"]
    if kind == "EMPTY":
        return {}
    if kind == "JOIN":
        left, right = (_relations(table[side], tables) for side in ("left", "right"))
        return left if table["join_type"] in ("SEMI", "ANTI") else left | right
    name, found = "", None
    if kind == "BASE_TABLE":
        path = (table.get("qualified_name") or {}).get("path") or [table.get("schema_name"), table["table_name"]]
        *of, name = [str(part).lower() for part in path if part]
        found = None if of else tables.get(name)
    elif kind == "SUBQUERY":
        found = _of_query(table["subquery"]["node"], tables)
    alias = str(table.get("alias") or name).lower()
    return {alias: _renamed(found, table.get("column_name_alias"))}


def _renamed(columns: Columns, aliases: Sequence[str] | None) -> Columns:
    if columns is None or not aliases:
        return columns
    return [each.lower() for each in aliases] + columns[len(aliases) :]


def _all(parts: Sequence[Columns]) -> Columns:
    return None if None in parts else [name for part in parts for name in part or ()]
