"""Which segment of a composite a row belongs to: declared conditions in SQL, made into one expression over a row."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from pip_dagster.registry.composite import Composite
from pip_dagster.registry.errors import SignatureMismatch
from pip_dagster.sql.names import WHOLE_NUMBERS, quote

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Their one-argument or configured forms depend on more than the row, whatever DuckDB's catalogue says.
_UNSTABLE = {"age", "current_setting", "getvariable", "error"}
_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "`*`",
    "PARAMETER": "a parameter",
    "LAMBDA": "a lambda",
}


def kind(sql_type: str) -> str:
    """What a column's SQL type is to a condition: whole number, number, text, or the type itself."""
    if sql_type in WHOLE_NUMBERS:
        return "whole number"
    if sql_type in {"FLOAT", "DOUBLE"} or sql_type.startswith("DECIMAL"):
        return "number"
    return "text" if sql_type == "VARCHAR" or sql_type.startswith("ENUM") else sql_type


def fits(sql_type: str, wanted: str) -> bool:
    """Whether a column of this type can be what a condition was written for."""
    return kind(sql_type) == wanted or (wanted, kind(sql_type)) == ("number", "whole number")


@dataclass(frozen=True)
class Route:
    """SQL over a row. ``number``: FLOAT, its segment's number, NaN for none.

    ``unmatched``: no condition holds; ``failed``: a condition ends in an error; ``undecided``: a condition that came
    before is NULL (BOOLEAN each).
    """

    number: str
    unmatched: str
    failed: str
    undecided: str

    def within(self, segments: Iterable[int]) -> str:
        """SQL: the row is of one of these segments."""
        return f"{self.number} IN ({', '.join(map(str, segments))})"


def route(composite: Composite, columns: Mapping[str, str]) -> Route:
    """The route over rows with these columns (name → SQL type), those that conditions read among them.

    NaN is NULL to a condition, as it is to a model. Raises SignatureMismatch where a condition cannot be read.
    """
    conditions = [segment.when for segment in composite.segments if segment.when is not None]
    read = tuple((name, columns[name]) for name in composite.columns)
    # 1: holds. 0: does not. 2: NULL. NULL: an error, which TRY makes of it.
    tries = [f"TRY(coalesce(({_over(text, read)})::TINYINT, 2))" for text in conditions]
    others = composite.segments[-1].when is None

    def first(holds: Sequence[str], error: str, otherwise: str) -> str:
        cases = (
            f"WHEN {t} IS NULL THEN {error} WHEN {t} = 1 THEN {then}" for t, then in zip(tries, holds, strict=True)
        )
        return f"(CASE {' '.join(cases)} ELSE {otherwise} END)"

    numbers = [f"{i}::FLOAT" for i in range(len(tries))]
    false = ["false"] * len(tries)
    nobody = f"{len(tries)}::FLOAT" if others else "'nan'::FLOAT"
    before = " ".join(f"WHEN {t} = 1 THEN false WHEN {t} = 2 THEN true" for t in tries)
    return Route(
        number=first(numbers, "'nan'::FLOAT", nobody),
        unmatched=first(false, "false", "false" if others else "true"),
        failed=first(false, "true", "false"),
        undecided=f"(CASE {before} ELSE false END)",
    )


def read_columns(condition: str, columns: Mapping[str, str]) -> dict[str, str]:
    """The columns that a condition reads, with their kinds; `columns` are those there are (name → SQL type).

    Raises SignatureMismatch: it is no BOOLEAN expression over them, or depends on more than the row.
    """
    import duckdb

    tree = _parse(condition)
    wrong = {_REFUSED[node["class"]] for node in _nodes(tree) if node.get("class") in _REFUSED}
    functions = {node["function_name"] for node in _nodes(tree) if node.get("class") == "FUNCTION"}
    with _duckdb() as con:
        known = con.execute(
            "SELECT function_name, bool_or(function_type = 'aggregate'), bool_or(stability <> 'CONSISTENT') "
            "FROM duckdb_functions() WHERE list_contains($names, function_name) GROUP BY ALL",
            {"names": sorted(functions)},
        ).fetchall()
        wrong |= {f"{name}()" for name, aggregate, unstable in known if aggregate or unstable}
        wrong |= {f"{name}()" for name in functions & _UNSTABLE}
        if wrong:
            raise SignatureMismatch(
                f"the condition {condition!r} uses {', '.join(sorted(wrong))}: which model scores a row must depend on "
                "the row alone. Make a column of it in the feature SQL"
            )
        found: dict[str, str] = {}
        folded = {name.lower(): name for name in columns}
        for node in _nodes(tree):
            if node.get("class") != "COLUMN_REF":
                continue
            names = node["column_names"]
            name = folded.get(names[0].lower()) if len(names) == 1 else None
            if name is None:
                raise SignatureMismatch(
                    f"the condition {condition!r} reads {'.'.join(names)!r}, which is no column of the sample; it has "
                    f"{', '.join(columns)}. Give a sample of the feature rows with every column that a condition reads"
                )
            found[name] = kind(columns[name])
        if not found:
            raise SignatureMismatch(f"the condition {condition!r} reads no column, and is the same for every row")
        text = _over(condition, tuple((name, columns[name]) for name in found))
        empty = ", ".join(f"NULL::{columns[name]} AS {quote(name)}" for name in found)
        try:
            described = con.execute(f"DESCRIBE SELECT {text} FROM (SELECT {empty})").fetchall()
        except duckdb.Error as error:
            raise SignatureMismatch(f"the condition {condition!r} cannot be evaluated: {error}") from error
    if described[0][1] != "BOOLEAN":
        raise SignatureMismatch(f"the condition {condition!r} is {described[0][1]}; expected BOOLEAN, as in `x > 5`")
    return found


@lru_cache(maxsize=256)
def _over(condition: str, columns: tuple[tuple[str, str], ...]) -> str:
    """A condition with its columns as it shall see them: NaN as NULL, an ENUM as text (it knows its own values only).

    Rewritten in DuckDB's own parse tree, so that a column's name inside a string stays what it is.
    """

    seen: dict[str, Any] = {}
    for name, sql_type in columns:
        column = quote(name)
        if sql_type in {"FLOAT", "DOUBLE"}:
            column = f"CASE WHEN isnan({column}) THEN NULL ELSE {column} END"
        elif sql_type.startswith("ENUM"):
            column = f"CAST({column} AS VARCHAR)"
        seen[name.lower()] = _parse(column)["statements"][0]["node"]["select_list"][0]

    def rewrite(node: Any) -> Any:
        if isinstance(node, list):
            return [rewrite(each) for each in node]
        if not isinstance(node, dict):
            return node
        if node.get("class") == "COLUMN_REF" and node["column_names"][0].lower() in seen:
            return seen[node["column_names"][0].lower()]
        return {key: rewrite(each) for key, each in node.items()}

    tree = json.dumps(rewrite(_parse(condition)))
    with _duckdb() as con:
        row = con.execute("SELECT json_deserialize_sql($tree::JSON)", {"tree": tree}).fetchone()
    assert row
    return f"({str(row[0]).removeprefix('SELECT ')})"


def _parse(condition: str) -> Any:

    with _duckdb() as con:
        row = con.execute("SELECT json_serialize_sql('SELECT ' || $text)", {"text": f"({condition}\n)"}).fetchone()
    tree = json.loads(row[0]) if row else {"error": True}
    if tree["error"]:
        raise SignatureMismatch(f"the condition {condition!r} is no SQL expression: {tree.get('error_message')}")
    return tree


def _duckdb() -> "DuckDBPyConnection":
    """A cursor for parsing and binding; one database in memory serves the whole process, since making one takes ms."""
    return _database().cursor()


@cache
def _database() -> "DuckDBPyConnection":
    import duckdb

    return duckdb.connect(config={"threads": 1})


def _nodes(tree: Any) -> Iterable[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for each in tree.values():
            yield from _nodes(each)
    elif isinstance(tree, list):
        for each in tree:
            yield from _nodes(each)
