"""What a table proposes for a pipeline: its key, partitions, features and outcome, each with the reason."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from typing import TYPE_CHECKING

from pip_dagster.errors import ScaffoldError
from pip_dagster.sql.names import RESERVED_COLUMNS, WHOLE_NUMBERS, quote, quote_all

if TYPE_CHECKING:
    import duckdb

MAX_CATEGORIES = 200  # a text column with more values is an identifier or prose rather than a category
_KEY_PARTS = 3  # the most columns that are tried together as a key
_LISTED = 20  # the most columns that an error lists
_DAYS_OF_DATES = re.compile(r"date|day|_at$|^at$|time|stamp|^ts$|_ts$", re.IGNORECASE)
_LATER_DATES = re.compile(r"updat|modif|chang|load|ingest|birth|expir|valid|delet|end", re.IGNORECASE)
_IDENTIFIERS = re.compile(r"(?i:(^|[_\s-])(id|key|no|nr|number|uuid|code)$)|[a-z]I[dD]$")


@dataclass(frozen=True)
class TableColumn:
    """One column of the table.

    `distinct` is approximate.
    """

    name: str
    type: str
    distinct: int
    nulls: bool

    @property
    def is_number(self) -> bool:
        """Whether XGBoost can take its values as numbers."""
        return self.type in WHOLE_NUMBERS | {"FLOAT", "DOUBLE"} or self.type.startswith("DECIMAL")


@dataclass(frozen=True)
class ProposedFeature:
    """A column that the model reads as `name`, cast to the SQL type `cast` where it has one."""

    name: str
    column: str
    cast: str | None
    is_category: bool


@dataclass(frozen=True)
class Proposal:
    """A pipeline over one table.

    Attributes:
        table: `schema.table`, as the feature SQL names it.
        key: columns that are unique within a partition.
        partition_column, partition_type: DATE, TIMESTAMP or TIMESTAMP WITH TIME ZONE.
        every: hour, day or month.
        left_out: columns that are no features, with the reason.
        outcome: the column with what is predicted; None if it is not known.
    """

    table: str
    key: tuple[str, ...]
    partition_column: str
    partition_type: str
    every: str
    start: date
    features: tuple[ProposedFeature, ...]
    left_out: tuple[tuple[str, str], ...]
    outcome: str | None
    is_binary: bool


@dataclass(frozen=True)
class Wishes:
    """What the user chose; None and () leave the choice to the data."""

    key: tuple[str, ...] = ()
    partition_column: str | None = None
    outcome: str | None = None


def propose(con: duckdb.DuckDBPyConnection, table: str, relation: str, wishes: Wishes) -> Proposal:
    """Read the table once for its columns, and once for each key that is tried.

    Args:
        con: a connection that can read `relation`.
        table: the name that the pipeline gives to the table, `schema.table`.
        relation: SQL of the table's rows.
        wishes: what the user chose.

    Raises:
        ScaffoldError: the table is empty, has no DATE or TIMESTAMP without NULLs or no unique columns, or lacks a
            column that was chosen.
    """
    rows = con.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0]
    if not rows:
        raise ScaffoldError(f"{table} has no rows: nothing can be proposed from it. Load some rows first.")
    columns = _columns(con, relation)
    by_name = {column.name.lower(): column for column in columns}
    for name in (*wishes.key, *filter(None, (wishes.partition_column, wishes.outcome))):
        if name.lower() not in by_name:
            near = get_close_matches(name.lower(), by_name, 3) if len(columns) > _LISTED else []
            meant = f" Did you mean {', '.join(by_name[each].name for each in near)}?" if near else ""
            raise ScaffoldError(f"{table} has no column {name}; it has {_listed([c.name for c in columns])}.{meant}")
    partition = _partition_column(table, columns, by_name, wishes.partition_column)
    chosen = tuple(by_name[name.lower()].name for name in wishes.key)
    key = _checked_key(con, relation, table, chosen) if chosen else _key(con, relation, table, columns, partition, rows)
    outcome = by_name[wishes.outcome.lower()] if wishes.outcome else None
    if outcome and not (outcome.is_number or outcome.type == "BOOLEAN"):
        raise ScaffoldError(
            f"{table}: the outcome {outcome.name} is {outcome.type}; expected a number or BOOLEAN. "
            "Number its values in a view or table."
        )
    features, left_out = _features(columns, {partition.name, *key}, outcome, rows)
    if not features:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out) or "only its key and partition column"
        raise ScaffoldError(f"{table} has no column that a model could read ({reasons}). Add one to the table.")
    first, last = _days(con, relation, table, partition)
    days = (last - first).days + 1
    return Proposal(
        table=table,
        key=key,
        partition_column=partition.name,
        partition_type=partition.type,
        every=_every(days, rows, partition),
        start=first,
        features=features,
        left_out=left_out,
        outcome=outcome.name if outcome else None,
        is_binary=outcome is not None and _is_binary(con, relation, outcome),
    )


def _columns(con: duckdb.DuckDBPyConnection, relation: str) -> list[TableColumn]:
    # Not SUMMARIZE: its standard deviation fails on a column with NaN or infinity.
    types = [(row[0], row[1]) for row in con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()]
    counts = ", ".join(
        f"approx_count_distinct({quote(name)}), count(*) FILTER ({quote(name)} IS NULL)" for name, _ in types
    )
    found = con.execute(f"SELECT {counts} FROM {relation}").fetchall()[0]
    pairs = zip(types, found[::2], found[1::2], strict=True)
    return [TableColumn(name, type_, distinct, nulls > 0) for (name, type_), distinct, nulls in pairs]


def _listed(texts: list[str]) -> str:
    more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    return ", ".join(texts[:_LISTED]) + more


def _partition_column(
    table: str, columns: list[TableColumn], by_name: dict[str, TableColumn], wish: str | None
) -> TableColumn:
    times = [column for column in columns if column.type == "DATE" or column.type.startswith("TIMESTAMP")]
    if wish:
        column = by_name[wish.lower()]
        if column not in times or column.nulls:
            found = f"{column.type}{', with NULLs' if column.nulls else ''}"
            raise ScaffoldError(
                f"{table}: the partition column {column.name} is {found}; expected DATE or "
                "TIMESTAMP without NULLs. Cast it in a view."
            )
        return column
    usable = [column for column in times if not column.nulls]
    if not usable:
        shown = _listed([f"{column.name} {column.type}" for column in columns])
        raise ScaffoldError(
            f"{table} has no DATE or TIMESTAMP column without NULLs that could put rows into partitions ({shown}). "
            "Cast one in a view or table of your database."
        )

    def rank(column: TableColumn) -> tuple[bool, bool, int]:
        return (bool(_LATER_DATES.search(column.name)), not _DAYS_OF_DATES.search(column.name), columns.index(column))

    return min(usable, key=rank)


def _days(con: duckdb.DuckDBPyConnection, relation: str, table: str, partition: TableColumn) -> tuple[date, date]:
    """The first and the last day, of those that a partition can have."""
    day = f"{quote(partition.name)}::DATE"
    usual = f"isfinite({day}) AND year({day}) BETWEEN 1 AND 9999"
    first, last = con.execute(f"SELECT min({day}), max({day}) FROM {relation} WHERE {usual}").fetchall()[0]
    if first is None:
        raise ScaffoldError(f"{table}: {partition.name} has no day from year 1 to 9999. Correct its values.")
    return first, last


def _key(
    con: duckdb.DuckDBPyConnection,
    relation: str,
    table: str,
    columns: list[TableColumn],
    partition: TableColumn,
    rows: int,
) -> tuple[str, ...]:
    candidates = [
        column
        for column in columns
        if not column.nulls
        and column.name != partition.name
        and (
            column.type in WHOLE_NUMBERS
            or column.type in ("VARCHAR", "UUID", "DATE")
            or column.type.startswith("TIMESTAMP")
        )
    ]
    candidates.sort(key=lambda c: (not _IDENTIFIERS.search(c.name), -c.distinct, columns.index(c)))
    for count in range(1, _KEY_PARTS + 1):
        for parts in itertools.combinations(candidates[:6], count):
            product = 1
            for part in parts:
                product *= max(part.distinct, 1)
            # `distinct` is off by a few per cent; columns that cannot be unique together are not tried.
            if product >= rows * 0.8 and _is_unique(con, relation, tuple(part.name for part in parts)):
                return tuple(part.name for part in parts)
    raise ScaffoldError(
        f"{table}: no column, nor up to {_KEY_PARTS} together, is unique and without NULLs. Name the key of a "
        "row: --key COLUMN, repeatable."
    )


def _checked_key(con: duckdb.DuckDBPyConnection, relation: str, table: str, key: tuple[str, ...]) -> tuple[str, ...]:
    if _is_unique(con, relation, key):
        return key
    raise ScaffoldError(f"{table}: {', '.join(key)} is NULL or repeated in some rows; a key names each row once.")


def _is_unique(con: duckdb.DuckDBPyConnection, relation: str, key: tuple[str, ...]) -> bool:
    some_null = " OR ".join(f"{quote(name)} IS NULL" for name in key)
    counted = f"SELECT count(*), count(DISTINCT ({quote_all(key)})), count(*) FILTER ({some_null}) FROM {relation}"
    rows, distinct, nulls = con.execute(counted).fetchall()[0]
    return rows == distinct and not nulls


def _every(days: int, rows: int, partition: TableColumn) -> str:
    if days <= 3 and partition.type != "DATE" and rows >= 1000:
        return "hour"
    return "month" if days > 90 and rows / days < 1 else "day"


def _features(
    columns: list[TableColumn], used: set[str], outcome: TableColumn | None, rows: int
) -> tuple[tuple[ProposedFeature, ...], tuple[tuple[str, str], ...]]:
    features: list[ProposedFeature] = []
    left_out: list[tuple[str, str]] = []
    taken = {column.name.lower() for column in columns}
    for column in columns:
        if column is outcome:
            left_out.append((column.name, "the outcome: not known when a row is scored"))
        elif column.name not in used:
            why = _why_no_feature(column, rows)
            if why:
                left_out.append((column.name, why))
            else:
                features.append(_feature(column, taken))
                taken.add(features[-1].name.lower())
    return tuple(features), tuple(left_out)


def _why_no_feature(column: TableColumn, rows: int) -> str:
    if column.distinct <= 1:
        return "one value only"
    if column.type in ("VARCHAR",) or column.type.startswith("ENUM"):
        return "" if column.distinct <= MAX_CATEGORIES else f"text with about {column.distinct:,} values"
    if column.type == "DATE" or column.type.startswith("TIMESTAMP"):
        return "a time; a model reads differences, such as date_diff('day', …)"
    if not (column.is_number or column.type == "BOOLEAN"):
        return f"{column.type} is neither a number nor a category"
    if column.type in WHOLE_NUMBERS and _IDENTIFIERS.search(column.name) and column.distinct > rows * 0.1:
        return "an identifier, by its name and its many values"
    return ""


def _feature(column: TableColumn, taken: set[str]) -> ProposedFeature:
    name = re.sub(r"[\[\]<]", "_", column.name)  # XGBoost trains with no such name
    if name.lower() in RESERVED_COLUMNS:
        name = f"{name}_value"
    if name != column.name:
        numbered = (f"{name}_{number}" for number in itertools.count(2))
        name = next(each for each in itertools.chain([name], numbered) if each.lower() not in taken)
    is_enum = column.type.startswith("ENUM")
    cast = "VARCHAR" if is_enum else None
    if column.type.startswith(("DECIMAL", "HUGEINT", "UHUGEINT", "UBIGINT")):
        cast = "DOUBLE"
    elif column.type == "BOOLEAN":
        cast = "INTEGER"  # train.py trains on numbers, and a model of numbers is given no BOOLEAN
    return ProposedFeature(name, column.name, cast, is_category=is_enum or column.type == "VARCHAR")


def _is_binary(con: duckdb.DuckDBPyConnection, relation: str, outcome: TableColumn) -> bool:
    if outcome.type == "BOOLEAN":
        return True
    found = con.execute(f"SELECT bool_and({quote(outcome.name)} IN (0, 1)) FROM {relation}").fetchall()[0][0]
    return bool(found)
