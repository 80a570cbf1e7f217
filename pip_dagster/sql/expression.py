"""DuckDB's parse tree of a text that is one SQL expression, and nothing more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from pip_dagster.errors import DeclarationError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_LOCATION = re.compile(r'"query_location(_length)?":\d+')


class Refused(Exception):  # noqa: N818
    """What is wrong with a text, as the rest of a sentence that begins with it."""


@contextmanager
def naming(subject: str) -> Iterator[None]:
    """Name what was refused."""
    try:
        yield
    except Refused as error:
        text = f"{subject} {error}"
        raise DeclarationError(text if text.endswith((".", "?")) else f"{text}.") from error


def bracketed(text: str) -> str:
    """A single expression in brackets, for a larger statement; a comment at its end swallows nothing.

    Raises:
        DeclarationError: it is not a single expression.
    """
    with naming(repr(text)):
        _serialized(text)
    return f"({text}\n)"


def substituted(text: str, values: Mapping[str, str]) -> str:
    """A judged expression with other SQL in the place of columns (lower-case name → SQL).

    Done in the parse tree, so that a column's name inside a string stays what it is.

    Raises:
        DeclarationError: it is not a single expression.
    """
    with naming(repr(text)):
        tree = parsed(text)
    trees = {name: parsed(sql)["statements"][0]["node"]["select_list"][0] for name, sql in values.items()}

    def replace(node: Any) -> Any:
        if isinstance(node, list):
            return [replace(each) for each in node]
        if not isinstance(node, dict):
            return node
        if node.get("class") == "COLUMN_REF" and len(node["column_names"]) == 1:
            # The alias is a field's name, in `{'field': column}`.
            return trees.get(node["column_names"][0].lower(), node) | {"alias": node["alias"]}
        node = {key: replace(each) for key, each in node.items()}
        if (owner := owner_of(node)) in trees:  # `name.lower()` is lower(name)
            node |= {"schema": "", "qualified_name": {"path": [node["function_name"]]}}
            first = trees[owner]
            if "arguments" in node:  # DuckDB 2
                node["arguments"] = [{"name": "", "expression": first}, *node["arguments"]]
            else:
                node["children"] = [first, *node["children"]]
        return node

    with duckdb_cursor() as con:
        row = con.execute("SELECT json_deserialize_sql($1::JSON)", [json.dumps(replace(tree))]).fetchone()
    assert row
    return f"({str(row[0]).removeprefix('SELECT ')})"


def owner_of(node: Mapping[str, Any]) -> str:
    """What stands before a function's name and a point, in lower case: a schema, or a column."""
    schema = (node.get("schema") or "").lower() if node.get("class") == "FUNCTION" else ""
    return "" if schema == "main" else schema


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node of a tree, in the order of the text; without recursion, which a long sum would exhaust."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        below: Iterable[Any] = node if isinstance(node, list) else ()
        if isinstance(node, dict):
            yield node
            below = () if node.get("class") == "CONSTANT" else node.values()
        waiting.extend(reversed([each for each in below if isinstance(each, dict | list)]))


def parsed(text: str) -> Any:
    """The parse tree of `SELECT text`; refused unless it is that of `SELECT (text)`: then it is one expression.

    Without brackets a text can bring clauses, names and statements; within them it can close and open others.
    """
    return json.loads(_serialized(text))


@lru_cache(maxsize=1024)
def _serialized(text: str) -> str:
    import duckdb

    queries = [f"SELECT\n{text}\n", f"SELECT (\n{text}\n)"]
    with duckdb_cursor() as con:
        try:
            found = con.execute("SELECT json_serialize_sql($1), json_serialize_sql($2)", queries).fetchone()
            bare, within = found or ("", "")
            errors = [str(tree["error_message"]) for tree in map(json.loads, (bare, within)) if tree["error"]]
        except duckdb.Error as error:
            errors = [str(error).splitlines()[0]]
        except RecursionError:
            errors = ["it is nested too deeply"]
    if errors and "selection list" in errors[0]:
        errors = ["it is empty"]
    if not errors and _LOCATION.sub("", bare) != _LOCATION.sub("", within):
        errors = ["it gives several values"]
    if errors:
        raise Refused(f"is not a single SQL expression ({errors[0]}): write one expression over the row's columns")
    return str(bare)


def duckdb_cursor() -> DuckDBPyConnection:
    """A cursor for parsing and binding; one database in memory serves the process, since making one takes ms."""
    return _database().cursor()


@cache
def _database() -> DuckDBPyConnection:
    import duckdb

    # It can read nothing, and has no functions but DuckDB's own.
    refused = ["autoinstall_known_extensions", "autoload_known_extensions", "enable_external_access"]
    config = dict.fromkeys([*refused, "python_enable_replacements"], "false")
    return duckdb.connect(config={"threads": "1", "lock_configuration": "true", **config})
