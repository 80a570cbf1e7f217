"""Row-level expectations in SQL, where their verdict is exactly that of Great Expectations.

They cover the commonest types, column types and kwargs; everything else compiles to None. Property tests compare both.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pip_dagster.quality.conditions import Bind, condition_sql, numeric, whole
from pip_dagster.quality.expectation_types import expectation_types
from pip_dagster.quality.frame import (
    BIG_INTS,
    FLOATS,
    SMALL_INTS,
    TIMESTAMPS,
    ZONED,
    Use,
    is_text,
    is_wide,
    sql_value,
    uses,
)
from pip_dagster.quality.suite import Expectation


@dataclass
class SqlCheck:
    """One expectation in SQL; the expressions are booleans of a row and never NULL.

    Attributes:
        selected: the row meets the row condition.
        judged: the row has a value to judge.
        expected: the value is as expected.
        unique: for the uniqueness types, instead of `expected`: what must be unique within a partition.
        parameters: the values bound in the expressions.
    """

    selected: str = "true"
    judged: str = "true"
    expected: str = "true"
    unique: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)


def compiled(number: int, expectation: Expectation, types: Mapping[str, str]) -> SqlCheck | None:
    """An expectation in SQL, None where it may not be equal; `number` makes the names of its parameters unique."""
    check = SqlCheck()

    def bind(value: Any, sql_type: str) -> str:
        name = f"e{number}_{len(check.parameters)}"
        check.parameters[name] = value
        return f"${name}::{sql_type}"

    own = uses(expectation)
    selected = condition_sql(expectation.row_condition, types, own, bind)
    compile_ = _COMPILERS.get(expectation.type)
    if selected is None or compile_ is None or not numeric(expectation.kwargs.get("mostly", 1)):
        return None
    check.selected = selected
    values = [sql_value(c, types[c], own[c]) for c in expectation.judged_columns]
    rule = str(expectation.kwargs.get("ignore_row_if", "all"))
    if "column" in expectation.kwargs:
        rule = "any"
    if values and not rule.startswith(("never", "neither")):
        together = " AND " if rule.startswith(("any", "either")) else " OR "
        check.judged = "(" + together.join(f"{v} IS NOT NULL" for v in values) + ")"
    columns = [(v, types[c], own[c]) for v, c in zip(values, expectation.judged_columns, strict=True)]
    return check if compile_(check, expectation, columns, bind) else None


_Column = tuple[str, str, Use]


def _row_count(check: SqlCheck, e: Expectation, columns: list[_Column], bind: Bind) -> bool:
    return row_limits(e) is not None


def row_limits(e: Expectation) -> tuple[int, int | float, bool, bool] | None:
    """Lowest and highest row count, and whether each is excluded; None where Great Expectations would refuse them."""
    if e.type == "expect_table_row_count_to_equal":
        value = e.kwargs.get("value")
        return (value, value, False, False) if isinstance(value, int) and whole(value) else None
    low, high = e.kwargs.get("min_value"), e.kwargs.get("max_value")
    if not all(v is None or whole(v) for v in (low, high)) or (low is None and high is None):
        return None
    if low is not None and high is not None and low > high:
        return None
    strict = (e.kwargs.get("strict_min", False) is True, e.kwargs.get("strict_max", False) is True)
    return (-1 if low is None else low, math.inf if high is None else high, *strict)


def _null(check: SqlCheck, e: Expectation, columns: list[_Column], bind: Bind) -> bool:
    check.judged = "true"
    check.expected = f"({columns[0][0]} IS {'NOT ' if 'not_be_null' in e.type else ''}NULL)"
    return True


def _between(check: SqlCheck, e: Expectation, columns: list[_Column], bind: Bind) -> bool:
    value, sql_type, _ = columns[0]
    low, high = (limit(e.kwargs.get(k), sql_type) for k in ("min_value", "max_value"))
    if low is _UNSURE or high is _UNSURE or (low is None and high is None):
        return False
    if low is not None and high is not None and low > high:
        return False
    integers = sql_type in SMALL_INTS | BIG_INTS
    bound_as = "BIGINT" if integers else "DOUBLE" if sql_type in FLOATS or is_wide(sql_type) else sql_type
    if integers and any(v is not None and abs(v) > 2**62 for v in (low, high)):
        return False
    if sql_type == "UBIGINT":
        value = f"{value}::HUGEINT"
    parts = []
    for bound, strict, sign in (
        (low, e.kwargs.get("strict_min", False), ">"),
        (high, e.kwargs.get("strict_max", False), "<"),
    ):
        if bound is None:
            continue
        if integers and not float(bound).is_integer():  # a bound between two integers excludes neither
            bound, strict = (math.ceil(bound) if sign == ">" else math.floor(bound)), False
        parts.append(
            f"{value} {sign}{'' if strict is True else '='} {bind(int(bound) if integers else bound, bound_as)}"
        )
    check.expected = f"coalesce({' AND '.join(parts)}, false)"
    return True


_UNSURE = object()


def limit(value: Any, sql_type: str) -> Any:
    """A limit as Great Expectations reads it for a column type; `_UNSURE` where it might read another value."""
    if value is None:
        return None
    if sql_type in SMALL_INTS | BIG_INTS | FLOATS or is_wide(sql_type):
        return float(value) if numeric(value) else _UNSURE
    if isinstance(value, str):
        try:
            parsed = dt.datetime.fromisoformat(value)
        except ValueError:
            return _UNSURE
        # a day, or an instant with seconds: pydantic, dateutil and Python read these in the same way
        instant = parsed if len(value) >= 19 and value[10] in "T " else None
        value = parsed.date() if len(value) == 10 else instant
    if not isinstance(value, dt.date) or not 1700 < value.year < 2200:
        return _UNSURE
    is_instant = isinstance(value, dt.datetime)
    if sql_type == "DATE":
        return _UNSURE if is_instant else value
    zoned = isinstance(value, dt.datetime) and value.tzinfo is not None
    if not is_instant or sql_type not in {ZONED, *TIMESTAMPS} or zoned != (sql_type == ZONED):
        return _UNSURE
    return value


def _in_set(check: SqlCheck, e: Expectation, columns: list[_Column], bind: Bind) -> bool:
    value, sql_type, _ = columns[0]
    members = e.kwargs.get("value_set")
    if not isinstance(members, list) or not members:
        return False
    if is_text(sql_type):
        fits, bound_as = all(isinstance(m, str) for m in members), "VARCHAR"
    elif sql_type in SMALL_INTS | BIG_INTS:
        fits, bound_as = all(whole(m) for m in members), "BIGINT"
    elif sql_type in FLOATS or is_wide(sql_type):
        fits, bound_as = all(numeric(m) for m in members), "DOUBLE"
    else:
        return False
    among = f"{value} IN ({', '.join(bind(m, bound_as) for m in members)})" if fits else ""
    check.expected = f"coalesce({'NOT ' if 'not_be_in' in e.type else ''}({among}), false)"
    return fits


def _pair(sign: str) -> Callable[[SqlCheck, Expectation, list[_Column], Bind], bool]:
    def compile_(check: SqlCheck, e: Expectation, columns: list[_Column], bind: Bind) -> bool:
        if len(columns) != 2 or e.kwargs.get("or_equal") not in (None, True, False):
            return False
        (a, type_a, _), (b, type_b, _) = columns
        family = _family(type_a)
        if family is None or family != _family(type_b):
            return False
        if family == "big":
            a, b = f"{a}::HUGEINT", f"{b}::HUGEINT"
        operator = ">=" if sign == ">" and e.kwargs.get("or_equal") else sign
        check.expected = f"coalesce({a} {operator} {b}, false)"
        return True

    return compile_


def _family(sql_type: str) -> str | None:
    if sql_type in SMALL_INTS | FLOATS or is_wide(sql_type):
        return "double"
    if sql_type in BIG_INTS:
        return "big"
    if sql_type == "DATE" or sql_type in TIMESTAMPS:
        return "instant"
    return "text" if is_text(sql_type) else ZONED if sql_type == ZONED else None


def _unique(check: SqlCheck, e: Expectation, columns: list[_Column], bind: Bind) -> bool:
    check.unique = tuple(f"({v} + 0.0)" if t in FLOATS else v for v, t, _ in columns)  # -0.0 is 0.0
    return len(columns) > 0 and all(_family(t) or t == "BOOLEAN" for _, t, _ in columns)


_COMPILERS: Mapping[str, Callable[[SqlCheck, Expectation, list[_Column], Bind], bool]] = {
    "expect_table_row_count_to_be_between": _row_count,
    "expect_table_row_count_to_equal": _row_count,
    "expect_column_values_to_not_be_null": _null,
    "expect_column_values_to_be_null": _null,
    "expect_column_values_to_be_between": _between,
    "expect_column_values_to_be_in_set": _in_set,
    "expect_column_values_to_not_be_in_set": _in_set,
    "expect_column_pair_values_a_to_be_greater_than_b": _pair(">"),
    "expect_column_pair_values_to_be_equal": _pair("="),
    "expect_column_values_to_be_unique": _unique,
    "expect_compound_columns_to_be_unique": _unique,
}

assert set(_COMPILERS) <= set(expectation_types())
