"""Row conditions in SQL, for conditions that select exactly the rows that pandas' `DataFrame.query` selects."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from pip_dagster.quality.frame import BIG_INTS, FLOATS, SMALL_INTS, Use, is_text, is_wide, sql_value

Bind = Callable[[Any, str], str]
"""Binds a value as a query parameter of a SQL type and returns its placeholder."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN_TEXT = re.compile(r"[\w .:+-]*")  # query() parses literals its own way: it gets those with quotes or backslashes
_SQL_OPERATOR = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def condition_sql(
    condition: Mapping[str, Any] | None, types: Mapping[str, str], uses: Mapping[str, Use], bind: Bind
) -> str | None:
    """The condition as a SQL expression that is never NULL; None where it may not be equivalent."""
    if condition is None:
        return "true"
    if condition["type"] not in ("and", "or"):
        return _leaf(condition, types, uses, bind)
    for part in condition["conditions"]:  # GE refuses a nested `or`, and flattens an `and` in an `and`
        if part["type"] == "or":
            return None
    parts = [condition_sql(part, types, uses, bind) for part in condition["conditions"]]
    if not all(parts):
        return None
    return "(" + f" {condition['type'].upper()} ".join(p for p in parts if p) + ")"


def whole(value: Any) -> bool:
    """Whether a value is a whole number that a double represents exactly."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def numeric(value: Any) -> bool:
    """Whether a value is a finite number that a double represents exactly."""
    return whole(value) or (isinstance(value, float) and math.isfinite(value))


def _leaf(condition: Mapping[str, Any], types: Mapping[str, str], uses: Mapping[str, Use], bind: Bind) -> str | None:
    name = condition["column"]["name"]
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        return None
    sql_type, use = types[name], uses[name]
    value = sql_value(name, sql_type, use)
    if condition["type"] == "nullity":
        if not isinstance(condition["is_null"], bool):
            return None
        return f"({value} IS {'' if condition['is_null'] else 'NOT '}NULL)"
    operator, parameter = condition["operator"], condition["parameter"]
    listed = operator in ("IN", "NOT_IN")
    parameters = parameter if listed else [parameter]
    if not isinstance(parameters, list) or not parameters:
        return None
    if is_text(sql_type):
        fits = operator in ("==", "!=", "IN", "NOT_IN") and all(
            isinstance(p, str) and _PLAIN_TEXT.fullmatch(p) for p in parameters
        )
        bound_as = "VARCHAR"
    elif sql_type in SMALL_INTS | BIG_INTS and (sql_type in BIG_INTS or use == "alone"):
        # nullable integers (alone): a missing value fails every comparison, even !=, and passes every NOT_IN
        fits = all(whole(p) for p in parameters) and not (use == "alone" and operator in ("!=", "NOT_IN"))
        bound_as = "BIGINT"
    elif sql_type in SMALL_INTS | FLOATS or is_wide(sql_type):
        if len({isinstance(p, float) for p in parameters}) > 1:
            return None
        fits = all(numeric(p) for p in parameters) and not (is_wide(sql_type) and use == "text")
        bound_as = "DOUBLE"
    else:
        return None
    if not fits:
        return None
    if listed:
        among = f"{value} IN ({', '.join(bind(p, bound_as) for p in parameters)})"
        return f"coalesce({among}, false)" if operator == "IN" else f"NOT coalesce({among}, false)"
    met = f"coalesce({value} {_SQL_OPERATOR[operator]} {bind(parameter, bound_as)}, {operator == '!='})"
    return met.replace("True", "true").replace("False", "false")
