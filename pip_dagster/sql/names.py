"""Names in SQL: quoting, and which columns are the warehouse's own."""

from __future__ import annotations

import re
from collections.abc import Iterable

# The open warehouse's name in every connection.
CATALOG = "warehouse"

# Columns that every stored row carries beside the user's own; a user's column of that name would shadow them.
RESERVED_COLUMNS = frozenset(
    {
        *("partition_key", "revision", "scoring_id", "role", "row_number"),
        "rowid",  # DuckDB's own row identifier
        *("row_id", "row_key", "reasons", "broken", "resolved_at", "feature_revision"),  # of the quarantine
    }
)

# Catalogs and schemas of the database in which the sources' views lie.
_NOT_OF_SOURCES = frozenset({"memory", "temp", "system", "pip_stage", "information_schema", "pg_catalog"})

# Catalogs and schemas that exist already, where a pipeline has its tables.
RESERVED_SCHEMAS = _NOT_OF_SOURCES | {"ledger", "main", CATALOG, "warehouse_lock", "published", "pip_wide"}

# Columns of the predictions view beside a row's key: a key column of that name would shadow one.
PREDICTION_COLUMNS = frozenset({"model_name", "model_version", "feature_revision", "scored_at", "provisional", "arm"})

# DuckDB's types of whole numbers.
WHOLE_NUMBERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"}
)

# Columns of a reason beside a row's key.
REASON_COLUMNS = frozenset({"rank", "output", "predicted_class", "feature", "value", "contribution", "base"})


def quote(name: str) -> str:
    """One SQL identifier, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def quote_all(names: Iterable[str], prefix: str = "") -> str:
    """A list of identifiers for a SELECT, each behind `prefix`."""
    return ", ".join(prefix + quote(name) for name in names)


def column_named(columns: Iterable[str], name: str) -> str | None:
    """The column that SQL reads by a name, whatever capitals either has; None without one."""
    return next((each for each in columns if each.lower() == name.lower()), None)


def literal(text: str) -> str:
    """One SQL string; for places that take no parameter (paths in ATTACH and COPY)."""
    return "'" + text.replace("'", "''") + "'"


def bare_type(sql_type: str) -> str:
    """A SQL type in capitals, without the names and values in it: of fields, and of an ENUM."""
    return re.sub(r'"(?:[^"]|"")*"|\'(?:[^\']|\'\')*\'', "", sql_type).upper()


def parquet_rows(globs: Iterable[str]) -> str:
    """SQL of the rows of Parquet files. A folder called `region=eu` adds no column and changes none."""
    listed = ", ".join(map(literal, globs))
    return f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"


def among(column: str, values: Iterable[str]) -> str:
    """SQL that tests whether a column has one of these values, as literals: DuckDB skips row groups without them.

    A single value becomes an equality, with which DuckDB skips most.
    """
    listed = [literal(value) for value in values]
    if len(listed) == 1:
        return f"{column} = {listed[0]}"
    return f"{column} IN ({', '.join(listed)})" if listed else "false"


def but_for(column: str, values: Iterable[str]) -> str:
    """SQL that tests whether a column has none of these values. With a list DuckDB would compare each row with each."""
    listed = [f"({literal(value)})" for value in values]
    return f"{column} NOT IN (VALUES {', '.join(listed)})" if listed else "true"


def check_table_name(name: str) -> str:
    """Return `schema.table` unchanged.

    Raises:
        ValueError: it does not have two parts, or one is empty or reserved.
    """
    parts = name.split(".")
    if len(parts) != 2 or not all(parts):
        raise ValueError(
            f"{name!r} is not a table name; expected `schema.table`, for example 'raw.orders', or 'main.orders' for a "
            "table in DuckDB's default schema"
        )
    if parts[0].lower() in _NOT_OF_SOURCES:
        raise ValueError(
            f"{name!r} is in a reserved schema; declare a view of it in another schema, such as 'raw.{parts[1]}'"
        )
    return name


def quote_table(name: str) -> str:
    """`schema.table` quoted part by part."""
    return ".".join(quote(part) for part in name.split("."))
