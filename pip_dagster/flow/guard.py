"""The guard between feature columns and a model, in SQL.

XGBoost scores reordered columns, unknown categories, infinities and codes of another list without an error. Here every
feature is read by name, in the model's order, from a column of a type that can mean what the model was trained on;
categories become codes by the model's own list; and values that must not be scored are counted before a row is scored.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pip_dagster.errors import DeclarationError
from pip_dagster.plural import plural
from pip_dagster.registry.manifest import Feature
from pip_dagster.registry.matrix import MatrixRules
from pip_dagster.sql.names import WHOLE_NUMBERS, column_named, literal, quote

_FLOATS = {"FLOAT", "DOUBLE"}
_NOT_A_NUMBER = "'nan'::FLOAT"


@dataclass(frozen=True)
class Encoded:
    """One feature in SQL: its float32 value, and the rows that must not be scored with it."""

    name: str
    column: str  # the quoted column
    number: str  # FLOAT, NULL or NaN where missing
    missing: str  # BIGINT: how many rows of a group are NULL or NaN
    invalid: str | None  # BOOLEAN: an infinity, a fraction in a whole number, beyond float32
    invalid_means: str
    unseen: str | None  # BOOLEAN: a category the model has never seen
    apart: str | None = None  # BOOLEAN: rows that go to quarantine, whatever is declared of unseen categories
    shows: bool = True  # whether no row is any of these where its number is one, and within float32

    @property
    def sound(self) -> str:
        """FLOAT, NULL or NaN where missing or unseen; where invalid it is no number, or at the bounds of float32."""
        faults = [fault for fault in (self.invalid, self.unseen, self.apart) if fault]
        if self.shows or not faults:
            return self.number
        return f"CASE WHEN {' OR '.join(f'({fault})' for fault in faults)} THEN NULL ELSE {self.number} END"

    @property
    def value(self) -> str:
        """FLOAT, NaN where missing."""
        return f"coalesce({self.number}, {_NOT_A_NUMBER})"


def encode_features(
    features: Sequence[Feature], columns: Mapping[str, str], rules: MatrixRules, *, where: str
) -> tuple[Encoded, ...]:
    """The features of a model over a table with `columns` (name → SQL type), in the model's order.

    Args:
        features: the model's signature.
        columns: what the table has; columns that the model does not use are ignored.
        rules: what the model's engine must not be given.
        where: whose table, for the messages.

    Raises:
        DeclarationError: lists every feature that is missing or of a type that cannot mean it.
    """
    encoded, problems = [], []
    named = Counter(feature.name.lower() for feature in features)
    for feature in features:
        sql_type = columns.get(feature.name)
        if sql_type is None and named[feature.name.lower()] == 1:
            sql_type = _in_other_capitals(feature.name, columns)
        if sql_type is None:
            close = difflib.get_close_matches(feature.name, columns, n=1)
            problems.append(f"{feature.name!r} is missing" + (f" (there is {close[0]!r})" if close else ""))
            continue
        made = _encode_one(feature, sql_type, rules)
        if isinstance(made, str):
            problems.append(f"{feature.name!r} is {sql_type}; {made}")
        else:
            encoded.append(made)
    if problems:
        raise DeclarationError(
            f"{where}: the columns do not fit the model's {plural(len(features), 'feature')}: "
            + "; ".join(problems)
            + "."
        )
    return tuple(encoded)


def with_missing(encoded: Encoded, value: float) -> Encoded:
    """A feature whose float32 `value` (a category's code) counts as missing, as NULL and NaN do."""
    number = f"'{value!r}'::FLOAT"
    return replace(
        encoded,
        number=f"nullif({encoded.number}, {number})",
        missing=f"{encoded.missing} + {count_where(f'{encoded.value} = {number}')}",
    )


def encode_offset(name: str, columns: Mapping[str, str], rules: MatrixRules, *, where: str) -> Encoded:
    """The column of the base margin. A row without a finite one must not be scored.

    Raises:
        DeclarationError: there is no such column, or it is not a number.
    """
    sql_type = columns.get(name) or _in_other_capitals(name, columns)
    if sql_type is None:
        close = difflib.get_close_matches(name, columns, n=1)
        hint = f" (there is {close[0]!r})" if close else ""
        raise DeclarationError(
            f"{where}: the model takes the offset {name!r}, its base margin, which is missing{hint}; select it in the "
            "feature SQL, in units of the margin, as in training."
        )
    made = _encode_one(Feature(name=name, type="float"), sql_type, rules)
    if isinstance(made, str):
        raise DeclarationError(f"{where}: the offset {name!r} is {sql_type}; expected a number.")
    invalid = f"coalesce(NOT isfinite(TRY_CAST({made.column}::DOUBLE AS FLOAT)), true)"
    return replace(made, name=f"offset {name}", invalid=invalid, invalid_means="NULL, NaN or infinite")


def _in_other_capitals(name: str, columns: Mapping[str, str]) -> str | None:
    """The type of the column that SQL reads by this name; a source's capitals come through a SELECT."""
    return columns.get(column_named(columns, name) or "")


def _encode_one(feature: Feature, sql_type: str, rules: MatrixRules) -> Encoded | str:
    column = quote(feature.name)
    base = "DECIMAL" if sql_type.startswith("DECIMAL") else sql_type
    numeric = base in WHOLE_NUMBERS or base in _FLOATS or base == "DECIMAL"
    if feature.type == "category":
        return _encode_category(feature, column, base)
    if feature.type == "bool":
        if base != "BOOLEAN":
            return "the model was trained on BOOLEAN: cast it in the feature SQL, for example `x <> 0`"
        return Encoded(feature.name, column, f"{column}::TINYINT::FLOAT", _nulls(column), None, "", None)
    if not numeric:
        return "the model was trained on a number: cast it in the feature SQL"
    conditions, means, shows = [], [], True
    if base in _FLOATS and not rules.takes_infinite:
        conditions.append(f"isinf({column})")
        means.append("infinite")
    if base in {"DOUBLE", "DECIMAL", "HUGEINT", "UHUGEINT"}:
        conditions.append(f"abs({column}::DOUBLE) > {rules.largest} AND NOT isnan({column}::DOUBLE)")
        means.append("beyond float32")
    if feature.type == "int" and base not in WHOLE_NUMBERS:
        conditions.append(f"NOT isnan({column}::DOUBLE) AND {column} <> trunc({column})")
        means.append("not whole")
        shows = False
    invalid = " OR ".join(f"({condition})" for condition in conditions) or None
    missing = _nulls(column) + (f" + {count_where(f'isnan({column})')}" if base in _FLOATS else "")
    # Through DOUBLE: DuckDB casts a DECIMAL to FLOAT a bit off now and then, and training saw a double.
    source = f"{column}::DOUBLE" if base == "DECIMAL" else column
    # TRY_CAST: a number beyond float32 is `invalid` and never scored; it must not end the query that counts it.
    number = f"TRY_CAST({source} AS FLOAT)"
    return Encoded(feature.name, column, number, missing, invalid, " or ".join(means), None, shows=shows)


def _encode_category(feature: Feature, column: str, base: str) -> Encoded | str:
    categories = feature.categories or ()
    text = base == "VARCHAR" or base.startswith("ENUM") or base == "UUID"
    whole = base in WHOLE_NUMBERS and all(re.fullmatch(r"-?\d+", category) for category in categories)
    flag = base == "BOOLEAN" and set(map(str.lower, categories)) <= {"true", "false"}
    if not (text or whole or flag):
        return (
            f"the model was trained on the categories {', '.join(map(repr, categories[:5]))}…: "
            "give the category itself, not a code for it"
        )
    value = f"{column}::VARCHAR"
    if flag:  # pandas writes True, DuckDB true
        categories = tuple(category.lower() for category in categories)
    names = ", ".join(literal(category) for category in categories)
    code = f"enum_code(TRY_CAST({value} AS ENUM({names})))::FLOAT"
    unseen = f"({column} IS NOT NULL AND {code} IS NULL)"
    return Encoded(feature.name, column, code, _nulls(column), None, "", unseen)


def _nulls(column: str) -> str:
    return f"count(*) - count({column})"


def count_where(condition: str) -> str:
    """The aggregate that counts the rows of a group for which `condition` holds.

    A FILTER costs a third more, and an OR of NULL and NaN in it three times as much; `countif` of NULLs alone is NULL.
    """
    return f"count(CASE WHEN {condition} THEN 1 END)"


def findings_sql(encoded: Sequence[Encoded], relation: str) -> str:
    """One row a partition: rows, then for each feature its missing, invalid and unseen counts."""
    counts = ["count(*)"]
    for feature in encoded:
        counts.append(feature.missing)
        counts.append(count_where(feature.invalid) if feature.invalid else "0")
        counts.append(count_where(feature.unseen) if feature.unseen else "0")
    return f"SELECT partition_key, {', '.join(counts)} FROM {relation} GROUP BY partition_key"


@dataclass(frozen=True)
class Findings:
    """What the guard counted in one partition, by feature."""

    rows: int
    missing: dict[str, int]
    invalid: dict[str, int]
    unseen: dict[str, int]

    def beside(self, other: Findings) -> Findings:
        """These with what was counted in other features of the same rows."""
        return Findings(
            other.rows, self.missing | other.missing, self.invalid | other.invalid, self.unseen | other.unseen
        )

    def __add__(self, other: Findings) -> Findings:
        """These with what was counted in the same features of other rows."""
        counts = (
            dict(Counter(own) + Counter(more))
            for own, more in ((self.missing, other.missing), (self.invalid, other.invalid), (self.unseen, other.unseen))
        )
        return Findings(self.rows + other.rows, *counts)

    @property
    def all_missing(self) -> list[str]:
        """Features with no value in any row: a source that fell silent looks like this."""
        return [name for name, count in self.missing.items() if count == self.rows] if self.rows else []


def read_findings(row: Sequence[int], encoded: Sequence[Encoded]) -> Findings:
    """One row of `findings_sql`, without its partition key."""
    rows, *counts = row
    triples = {feature.name: counts[i * 3 : i * 3 + 3] for i, feature in enumerate(encoded)}
    missing, invalid, unseen = ({name: triple[i] for name, triple in triples.items() if triple[i]} for i in range(3))
    return Findings(rows, missing, invalid, unseen)
