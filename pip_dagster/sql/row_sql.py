"""Whether a text is one SQL expression over one row, judged on DuckDB's parse tree. No other place decides it.

Such an expression gives a row the same value whichever rows are beside it, and whenever it runs. Decisions, filters,
segments and cut-offs rely on that: rows are scored in chunks, and replayed years later.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from pip_dagster.errors import DeclarationError
from pip_dagster.sql.expression import Refused, bracketed, duckdb_cursor, naming, nodes, owner_of, parsed
from pip_dagster.sql.names import literal, quote

# LAMBDA is JSON's arrow too (`payload -> '$.a'`); a lambda is known by the function that takes it.
_ALLOWED = {
    *("BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT"),
    *("FUNCTION", "LAMBDA", "OPERATOR", "TYPE"),
}
_NAMES = {
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a column by position",
    "STAR": "`*`",
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
}
# Functions that depend on more than their arguments although DuckDB 1.5 calls them consistent.
_MISLABELLED = {
    *("alias", "current_localtime", "current_localtimestamp", "current_role", "current_setting", "current_user"),
    *("getvariable", "index_key", "json_serialize_plan", "session_user", "user", "vector_type", "version"),
}
_INSTANT = "TIMESTAMP WITH TIME ZONE"
_ELSEWHERE = "compute it where the row comes from and read it here as a column"


@dataclass(frozen=True)
class RowExpression:
    """A judged expression: `sql`, in brackets, fits wherever an expression may stand; it reads `columns`."""

    sql: str
    sql_type: str
    columns: tuple[str, ...]


def row_expression(text: str, columns: Mapping[str, str], *, where: str, row: str) -> RowExpression:
    """Judge `text` as one expression over a row with `columns` (name → SQL type).

    Args:
        text: what a person declared.
        columns: the columns that it may read.
        where: the pipeline and the key that declares it, for the error.
        row: a name for the row, such as "the scored row", for the error.

    Raises:
        DeclarationError: it is not a single expression, reads another column, or depends on anything but the row. Names
            `where`, the text, what is wrong and what to do.
    """
    with naming(f"{where} {text!r}"):
        return _judged(text, tuple(columns.items()), row)


class _AnyColumn(set[str]):
    """The columns of a row that is not known yet."""

    def __contains__(self, name: object) -> bool:
        return bool(name)


def check_row_sql(text: str) -> None:
    """Judge `text` as one expression over one row, where the row's columns are not known yet.

    Raises:
        DeclarationError: it is not a single expression, or depends on anything but the row.
    """
    with naming(repr(text)):
        list(_references(parsed(text), _AnyColumn()))  # which judges each as it is reached


def row_condition(text: str, columns: Mapping[str, str], *, where: str, row: str) -> RowExpression:
    """Judge `text` as `row_expression` does, and as a condition.

    Raises:
        DeclarationError: as for `row_expression`, or its type is not BOOLEAN.
    """
    found = row_expression(text, columns, where=where, row=row)
    if found.sql_type != "BOOLEAN":
        raise DeclarationError(f"{where} {text!r} is {found.sql_type}; expected BOOLEAN, as in `score >= 0.5`.")
    return found


def compared_with(text: str, column: str) -> list[str]:
    """The constants, as text, that an expression compares a column with: by an operator, IN, BETWEEN or CASE.

    Raises:
        Refused: it is not a single expression.
    """
    found: dict[str, None] = {}
    for node in nodes(parsed(text)):
        if not str(node.get("type", "")).startswith("COMPARE_"):
            continue
        operands = [node[name] for name in ("left", "right", "input", "lower", "upper") if name in node]
        sides = [*(node.get("children") or node.get("arguments") or ()), *operands]
        if any(is_column(side, column) for side in sides):
            values = [side["value"] for side in sides if side.get("class") == "CONSTANT"]
            found |= {str(value["value"]): None for value in values if not value["is_null"]}
    return list(found)


def is_column(node: Mapping[str, Any], column: str) -> bool:
    """Whether a node of a parse tree is this column and nothing else."""
    return node.get("class") == "COLUMN_REF" and [name.lower() for name in node["column_names"]] == [column.lower()]


def row_instant(text: str, columns: Mapping[str, str], *, where: str, row: str, time_zone: str) -> str:
    """Judge `text` as `row_expression` does, and as an instant: SQL of a TIMESTAMPTZ.

    A DATE or a TIMESTAMP without a time zone is wall-clock time in `time_zone`, as in a partition column.

    Raises:
        DeclarationError: as for `row_expression`, or its type is not a date, an instant or text. Unless `time_zone` is
            UTC, text is refused too, and a cast between wall-clock time and an instant, which DuckDB does in UTC.
    """
    found = row_expression(text, columns, where=where, row=row)
    is_text, zone = found.sql_type == "VARCHAR", literal(time_zone)
    if not is_text and not found.sql_type.startswith(("DATE", "TIMESTAMP")):
        raise DeclarationError(f"{where} {text!r} is {found.sql_type}; expected an instant, as in `loaded_at`.")
    if time_zone == "UTC":
        return f"{found.sql}::TIMESTAMPTZ"
    if is_text:
        raise DeclarationError(
            f"{where} {text!r} is text; expected an instant. Write `({text})::TIMESTAMPTZ` if the text has a UTC "
            f"offset, else `({text})::TIMESTAMP`, which is wall-clock time in {time_zone}."
        )
    read = tuple((name, columns[name]) for name in found.columns)
    if found.sql_type != _INSTANT and (function := _counts_in_utc(found.sql, read)):
        raise DeclarationError(
            f"{where} {text!r} reads a number with {function}, which gives wall-clock time in UTC; the partitions are "
            f"in {time_zone}. Write `timezone('UTC', {text})`."
        )
    if cast := _casts_in_utc(found.sql, read):
        raise DeclarationError(
            f"{where} {text!r} casts {cast[0]} to {cast[1]}, which DuckDB does in UTC; the partitions are in "
            f"{time_zone}. Write `timezone({zone}, …)` for the cast. A DATE or TIMESTAMP alone needs none: it is "
            f"wall-clock time in {time_zone}."
        )
    return found.sql if found.sql_type == _INSTANT else f"timezone({zone}, {found.sql}::TIMESTAMP)"


@lru_cache(maxsize=1024)
def _casts_in_utc(sql: str, read: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
    """A cast, written or implied, between wall-clock time and an instant: its types, from and to."""
    for node in _plan_nodes(sql, read):
        if node.get("type") == "OPERATOR_CAST":
            types = [(each.get("return_type") or {}).get("id") for each in (node["child"], node)]
            walls = [kind == "DATE" or str(kind).startswith("TIMESTAMP") and kind != _INSTANT for kind in types]
            if _INSTANT in types and any(walls):
                return str(types[0]), str(types[1])
    return None


@lru_cache(maxsize=1024)
def _counts_in_utc(sql: str, read: tuple[tuple[str, str], ...]) -> str | None:
    """A function that makes a TIMESTAMP without a zone of a number since 1970, such as `epoch_ms`."""
    for node in _plan_nodes(sql, read):
        if node.get("type") == "BOUND_FUNCTION" and [each["id"] for each in node["arguments"]] == ["BIGINT"]:
            kind = node["return_type"]["id"]
            if kind.startswith("TIMESTAMP") and kind != _INSTANT:
                return str(node["qname"]["path"][-1] if "qname" in node else node["name"])  # DuckDB 2: `qname`
    return None


def _plan_nodes(sql: str, read: tuple[tuple[str, str], ...]) -> Iterator[dict[str, Any]]:
    with duckdb_cursor() as con:
        row = con.execute("SELECT json_serialize_plan($1)", [f"SELECT {sql} FROM ({_empty(read)})"]).fetchone()
    assert row
    return nodes(json.loads(row[0]))


def _empty(columns: Iterable[tuple[str, str]]) -> str:
    """A SELECT of one row with such columns."""
    return "SELECT " + (", ".join(f"NULL::{kind} AS {quote(name)}" for name, kind in columns) or "NULL")


@lru_cache(maxsize=1024)
def _judged(text: str, columns: tuple[tuple[str, str], ...], row: str) -> RowExpression:
    import duckdb

    types = dict(columns)
    offered = {name.lower(): name for name in types}
    read: dict[str, None] = {}
    for parts in _references(parsed(text), set(offered)):
        name = offered.get(parts[0].lower())
        if name is None:
            near = difflib.get_close_matches(parts[0], types, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise Refused(
                f"reads {'.'.join(parts)!r}, which is not a column of {row}, which has {', '.join(types)}{hint}"
            )
        read[name] = None
    sql = bracketed(text)
    empty = _empty((name, types[name]) for name in read)
    with duckdb_cursor() as con:
        try:
            described = con.execute(f"DESCRIBE SELECT {sql} AS value FROM ({empty})").fetchall()
        except duckdb.Error as error:
            raise Refused(f"cannot be evaluated: {str(error).splitlines()[0]}") from error
    return RowExpression(sql, described[0][1], tuple(read))


def _references(tree: Any, offered: set[str]) -> Iterator[list[str]]:
    """The columns that a tree names, part by part, in order. Refuses all that is not an expression of one row."""
    for node in nodes(tree):
        kind = node.get("class")
        if not isinstance(kind, str):
            continue
        if kind not in _ALLOWED:
            raise Refused(f"contains {_NAMES.get(kind, kind)}, which depends on more than the row: {_ELSEWHERE}")
        if kind == "COLUMN_REF":
            yield node["column_names"]
        elif kind == "FUNCTION":
            owner = owner_of(node)
            name = ".".join(filter(None, (node.get("catalog"), node.get("schema"), node["function_name"])))
            if owner in offered:  # `name.lower()` is lower(name)
                yield [owner]
                owner, name = "", node["function_name"]
            if node.get("catalog") or owner:
                raise Refused(f"uses {name}(), which is not a function of one row: {_ELSEWHERE}")
            arguments = len(node.get("arguments") or node.get("children") or ()) + (owner_of(node) in offered)
            if why := _why_not(node["function_name"].lower(), arguments):
                raise Refused(f"uses {name}(), which {why}")


@cache
def _why_not(name: str, arguments: int) -> str | None:
    """Why a function's value depends on more than its arguments; None: it does not."""
    found = core_functions().get(name)
    if found is None:  # `unnest` among them, which gives several rows
        near = difflib.get_close_matches(name, core_functions(), 1, cutoff=0.8)
        return "is not a function of one row" + (f"; did you mean {near[0]}()?" if near else f": {_ELSEWHERE}")
    kinds = {each[0] for each in found}
    if kinds & {"aggregate", "window"} or not kinds & {"scalar", "macro"}:
        return f"is not a function of one row: {_ELSEWHERE}"
    if any("LAMBDA" in each[2] for each in found):
        return f"takes a lambda: {_ELSEWHERE}"
    if (name, arguments) == ("age", 1):
        return f"counts from today: {_ELSEWHERE}"
    # To DuckDB 2 the variants for instants are consistent within a query: they read the time zone, here always UTC.
    stable = {each[1] for each in found if each[0] == "scalar"}
    if name in _MISLABELLED or (stable and ("CONSISTENT" not in stable or "VOLATILE" in stable)):
        return f"depends on more than the row, such as the time, chance or settings: {_ELSEWHERE}"
    for _, _, _, parameters, definition in found:
        if definition is not None:
            try:
                known = {each.lower() for each in parameters}
                strange = [parts for parts in _references(parsed(definition), known) if parts[0].lower() not in known]
            except Refused as error:
                return f"is a macro that {error}"
            if strange:
                return f"is a macro that reads {strange[0][0]}: {_ELSEWHERE}"
    return None


@cache
def core_functions() -> dict[str, list[tuple[str, str | None, list[str], list[str], str | None]]]:
    """DuckDB's own functions by name: kind, stability, types and names of the parameters, a macro's definition."""
    found: dict[str, list[Any]] = {}
    with duckdb_cursor() as con:
        for name, *facts in con.execute(
            "SELECT lower(function_name), function_type, stability, parameter_types, parameters, macro_definition "
            "FROM duckdb_functions() WHERE schema_name = 'main'"
        ).fetchall():
            found.setdefault(name, []).append(tuple(facts))
    return found
