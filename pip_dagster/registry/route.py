"""Which segment of a composite a row belongs to: declared conditions in SQL, made into one expression over a row."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pip_dagster.errors import DeclarationError
from pip_dagster.registry.composite import Composite
from pip_dagster.registry.errors import SignatureMismatch
from pip_dagster.sql.expression import substituted
from pip_dagster.sql.names import WHOLE_NUMBERS, quote
from pip_dagster.sql.row_sql import row_condition


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

    NaN is NULL to a condition, as it is to a model. Raises DeclarationError where a condition cannot be read.
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

    Raises SignatureMismatch: it is not a BOOLEAN expression over them, or depends on more than the row.
    """
    seen = {name: "VARCHAR" if sql_type.startswith("ENUM") else sql_type for name, sql_type in columns.items()}
    try:
        found = row_condition(condition, seen, where="the condition", row="the sample")
    except DeclarationError as error:
        raise SignatureMismatch(str(error)) from error
    if not found.columns:
        raise SignatureMismatch(f"the condition {condition!r} reads no column, and is the same for every row")
    return {name: kind(columns[name]) for name in found.columns}


@lru_cache(maxsize=256)
def _over(condition: str, columns: tuple[tuple[str, str], ...]) -> str:
    """A condition over columns as it must see them: NaN as NULL, an ENUM as text (it knows only its own values)."""
    seen = {}
    for name, sql_type in columns:
        column = quote(name)
        if sql_type in {"FLOAT", "DOUBLE"}:
            column = f"CASE WHEN isnan({column}) THEN NULL ELSE {column} END"
        elif sql_type.startswith("ENUM"):
            column = f"CAST({column} AS VARCHAR)"
        seen[name.lower()] = column
    return substituted(condition, seen)
