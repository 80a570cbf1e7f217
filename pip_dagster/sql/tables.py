"""What a person's query may read, judged on DuckDB's parse tree: named tables, and DuckDB's own functions of values.

No other place decides it. A file, a path or a Python variable as a table, a function of files, servers, settings or the
catalog, and a statement that writes are refused; so is whatever this module does not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pip_dagster.sql.expression import Refused, duckdb_cursor
from pip_dagster.sql.names import literal
from pip_dagster.sql.row_sql import core_functions

_QUERIES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_RELATIONS = {"BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SUBQUERY", "TABLE_FUNCTION"}
_EXPRESSIONS = {
    *("BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "DEFAULT"),
    *("FUNCTION", "LAMBDA", "LAMBDA_REF", "OPERATOR", "PARAMETER", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY"),
    *("TYPE", "WINDOW"),
}
# Table functions of their arguments alone.
_VALUES = frozenset({"generate_series", "json_each", "json_tree", "range", "repeat", "repeat_row", "unnest"})
# Functions of values that read or change something beside them: settings, variables, sequences, logs, the query itself.
_REFUSED = {
    *("current_query", "current_setting", "currval", "getenv", "getvariable", "in_search_path", "json_serialize_plan"),
    *("nextval", "pg_sleep", "setseed", "setval", "sleep_ms", "write_log"),
}
_KINDS = {"aggregate", "macro", "scalar", "window"}
# What SHOW lists beside tables can be variables or databases.
_LISTS = {'"tables"', '"schemas"', "__show_tables_expanded"}


@dataclass(frozen=True)
class Readable:
    """What a query may read.

    Attributes:
        tables: `schema.table`, folded.
        kind: what one of them is to the person, for the error.
        table_remedy: what to do about another table, for the error.
        function_remedy: what to do about a function, for the error.
        catalogs: databases whose name may stand before a schema.
        functions: table functions beside those of values.
        shows: whether DESCRIBE, SHOW and SUMMARIZE are allowed.
    """

    tables: frozenset[str]
    kind: str = "a declared source"
    table_remedy: str = "declare it under `sources`, or correct the name"
    function_remedy: str = "load what it reads into a table or a Parquet file, and declare that as a source"
    catalogs: frozenset[str] = frozenset({"memory"})
    functions: frozenset[str] = frozenset()
    shows: bool = False


@lru_cache(maxsize=256)
def tables_read(sql: str, readable: Readable) -> frozenset[str]:
    """The tables of `readable` that a SELECT reads; a common table expression is none.

    Raises:
        Refused: the text is not one SELECT, or may read or write anything else.
    """
    found: set[str] = set()
    waiting: list[tuple[Any, frozenset[str]]] = [(statement_tree(sql), frozenset())]
    while waiting:
        node, named = waiting.pop()
        if isinstance(node, list):
            waiting += [(each, named) for each in reversed(node)]
        if not isinstance(node, dict) or node.get("class") == "CONSTANT":
            continue
        try:
            found |= _judged(node, named, readable)
        except Refused as error:
            raise Refused(f"{_line(sql, node)}{error}") from None
        waiting += _below(node, named)
    return frozenset(found)


def folded(name: str) -> str:
    """A name as DuckDB compares it: it folds the letters of ASCII and no others."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


def statement_tree(sql: str) -> Any:
    """DuckDB's parse tree of one SELECT.

    Raises:
        Refused: the text is anything else.
    """
    import duckdb

    try:
        with duckdb_cursor() as con:
            # A bound parameter would import pandas, for which every load of a pipeline would wait.
            row = con.execute(f"SELECT json_serialize_sql({literal(sql)})").fetchone()
            tree: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
            if tree["error"]:
                at = str(tree.get("position") or "")
                line = _line(sql, {"query_location": int(at) if at.isdecimal() else None})
                raise Refused(line + _unreadable(con, sql, str(tree.get("error_message"))))
    except (duckdb.Error, RecursionError) as error:
        raise Refused(f"cannot be parsed: {str(error).splitlines()[0]}") from error
    if len(tree["statements"]) != 1:
        raise Refused(f"has {len(tree['statements'])} statements; expected exactly one SELECT")
    return tree["statements"][0]


def _unreadable(con: Any, sql: str, message: str) -> str:
    """Why there is no parse tree."""
    import duckdb

    try:
        statements = con.extract_statements(sql)
    except duckdb.Error:
        return f"cannot be parsed: {message}"
    kind = str(statements[0].type).rpartition(".")[2] if statements else ""
    if kind in ("SELECT", "MULTI", "CREATE") and "pivot" in sql.lower():  # 1.5 makes a type of the values first
        return (
            "has a PIVOT that reads its columns from the data; list its values, as in "
            "`PIVOT t ON shop IN ('a', 'b') USING sum(x)`, or write `sum(x) FILTER (shop = 'a') AS a`"
        )
    if len(statements) != 1:
        return f"has {len(statements)} statements; expected exactly one SELECT"
    if kind != "SELECT":
        return f"is a statement of the kind {kind}; expected exactly one SELECT"
    return f"cannot be judged: {message}; write it as a plain SELECT"


def _line(sql: str, node: Mapping[str, Any]) -> str:
    at = node.get("query_location")
    text = sql.encode()
    if not isinstance(at, int) or at >= len(text) or b"\n" not in text.strip():
        return ""
    line = text[:at].count(b"\n") + 1
    return f"line {line}: "


def _below(node: Mapping[str, Any], named: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
    """What is in a node, each with the table expressions that it sees."""
    for entry in (node.get("cte_map") or {}).get("map", ()):
        yield entry["value"], named  # it sees those before it
        named |= {folded(entry["key"])}
    recursive = node.get("type") == "RECURSIVE_CTE_NODE"
    for key, each in node.items():
        if (
            key == "function" and node.get("type") == "TABLE_FUNCTION"
        ):  # judged with the relation; its arguments are not
            yield [*each.values()], named
        elif key != "cte_map":
            # Only the second part of a recursion sees its name; in the first, that is another table.
            yield each, named | {folded(node["cte_name"])} if recursive and key == "right" else named


def _judged(node: Mapping[str, Any], named: frozenset[str], readable: Readable) -> set[str]:
    """The tables that a node reads itself."""
    kind, expression = node.get("type"), node.get("class")
    if isinstance(expression, str):
        if expression not in _EXPRESSIONS:
            raise Refused(f"contains {expression}, which a query must not; write it in another way")
        if expression == "FUNCTION":
            _check_function(node, readable)
    elif isinstance(kind, str) and kind.endswith("_NODE"):
        if kind not in _QUERIES:
            verb = kind.split("_")[0]
            raise Refused(f"contains {verb}, which writes; expected exactly one SELECT that writes nothing")
    elif isinstance(kind, str) and "alias" in node and not kind.endswith("_TYPE_INFO"):
        return _relation(node, kind, named, readable)
    return set()


def _relation(node: Mapping[str, Any], kind: str, named: frozenset[str], readable: Readable) -> set[str]:
    if kind == "SHOW_REF":
        if not readable.shows:
            raise Refused("contains DESCRIBE, SHOW or SUMMARIZE, which is not a read of rows; remove it")
        if not (node["query"] or node["show_type"] == "SHOW_FROM" or node["table_name"] in _LISTS):
            raise Refused("contains SHOW of something that is not a table; write SHOW TABLES or DESCRIBE a table")
    elif kind not in _RELATIONS:
        raise Refused(f"contains {kind} in FROM, which a query must not; write it in another way")
    elif kind == "TABLE_FUNCTION":
        function = node["function"]
        name = folded(function["function_name"])
        if not _is_core(function) or name not in _VALUES | readable.functions:
            known = ", ".join(f"{each}()" for each in sorted(_VALUES))
            raise Refused(
                f"uses {_full_name(function)}() in FROM, which may read more than {readable.kind}; "
                f"{readable.function_remedy} (allowed there: {known})"
            )
    elif kind == "BASE_TABLE":
        return _table(node, named, readable)
    return set()


_CATALOG = ("information_schema.", "main.duckdb_")  # of the database itself: an error lists them last


def _table(node: Mapping[str, Any], named: frozenset[str], readable: Readable) -> set[str]:
    """The table that a reference means, none for a table expression: in `a.b`, `a` is a schema or the database."""
    path = (node.get("qualified_name") or {}).get("path")  # DuckDB 2
    shown = [part for part in path or [node["catalog_name"], node["schema_name"], node["table_name"]] if part]
    parts = [folded(part) for part in shown]
    if parts[-1] in named and parts[:-1] in ([], ["recurring"]):
        return set()
    meant = {f"main.{parts[0]}"} if len(parts) == 1 else set()
    if len(parts) == 2:
        meant = {".".join(parts)} | ({f"main.{parts[1]}"} if parts[0] in readable.catalogs else set())
    elif len(parts) == 3 and parts[0] in readable.catalogs:
        meant = {".".join(parts[1:])}
    if not meant & readable.tables:
        there = ", ".join(sorted(readable.tables, key=lambda name: (name.startswith(_CATALOG), name))[:20]) or "none"
        raise Refused(
            f"reads {'.'.join(shown)!r}, which is not {readable.kind}; {readable.table_remedy} (there is: {there})"
        )
    return meant & readable.tables


def _check_function(node: Mapping[str, Any], readable: Readable) -> None:
    """Refuse a function that is not DuckDB's own, or not one of values; `name.lower()` is lower(name)."""
    name = folded(node["function_name"])
    if name in _VALUES:  # `unnest`, as an expression
        return
    if name in _REFUSED or not {each[0] for each in core_functions().get(name, ())} & _KINDS:
        raise Refused(
            f"uses {_full_name(node)}(), which is not one of DuckDB's own functions of values; remove it, or "
            f"{readable.function_remedy}"
        )
    for kind, *_, definition in core_functions()[name]:  # a table function can have the same name
        if kind == "macro" and not _is_of_values(str(definition)):
            raise Refused(f"uses {_full_name(node)}(), which reads DuckDB's catalog or settings; remove it")


@lru_cache(maxsize=1024)
def _is_of_values(definition: str) -> bool:
    """Whether a macro of DuckDB's own reads no table."""
    try:
        return not tables_read(f"SELECT {definition}", Readable(frozenset()))
    except Refused:
        return False


def _is_core(function: Mapping[str, Any]) -> bool:
    return not function.get("catalog") and folded(function.get("schema") or "main") == "main"


def _full_name(function: Mapping[str, Any]) -> str:
    return ".".join(filter(None, (function.get("catalog"), function.get("schema"), function["function_name"])))
