"""DuckDB's types as Postgres's, how each is written in CSV, and which columns of an existing table can take them."""

from __future__ import annotations

import re

from pip_dagster.sql.names import bare_type, quote

_SAME = {
    "BOOLEAN": "boolean",
    "TINYINT": "smallint",
    "UTINYINT": "smallint",
    "SMALLINT": "smallint",
    "USMALLINT": "integer",
    "INTEGER": "integer",
    "UINTEGER": "bigint",
    "BIGINT": "bigint",
    "UBIGINT": "numeric(20,0)",
    "HUGEINT": "numeric(39,0)",
    "UHUGEINT": "numeric(39,0)",
    "BIGNUM": "numeric",
    "VARINT": "numeric",
    "FLOAT": "real",
    "DOUBLE": "double precision",
    "DATE": "date",
    "TIME": "time without time zone",
    "TIME_NS": "time without time zone",
    "TIME WITH TIME ZONE": "time with time zone",
    "TIMESTAMP": "timestamp without time zone",
    "TIMESTAMP_S": "timestamp without time zone",
    "TIMESTAMP_MS": "timestamp without time zone",
    "TIMESTAMP_NS": "timestamp without time zone",
    "TIMESTAMP WITH TIME ZONE": "timestamp with time zone",
    "INTERVAL": "interval",
    "UUID": "uuid",
    "BLOB": "bytea",
    "BIT": "bit varying",
    "JSON": "jsonb",
}
_NESTED = re.compile(r"(STRUCT|MAP|UNION)\s*\(|.*\[\d*\]$", re.DOTALL)
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")

# Postgres's type → those of an existing column that take each of its values unchanged.
_TEXTS = ("text", "character varying")
_WIDER = {
    "smallint": ("integer", "bigint", "numeric"),
    "integer": ("bigint", "numeric"),
    "bigint": ("numeric",),
    "real": ("double precision",),
    "text": _TEXTS,
    "jsonb": ("json",),
}


def type_of(sql_type: str) -> str:
    """The type of Postgres for a type of DuckDB; `text` for one that Postgres has no like of."""
    bare = bare_type(sql_type).strip()
    if decimal := _DECIMAL.fullmatch(bare):
        return f"numeric({decimal[1]},{decimal[2]})"
    return "jsonb" if _NESTED.match(bare) else _SAME.get(bare, "text")


def csv_value(name: str, sql_type: str) -> str:
    """SQL of DuckDB for a column as Postgres reads it from CSV."""
    column, bare = quote(name), bare_type(sql_type).strip()
    if _NESTED.match(bare):
        return f"to_json({column})::VARCHAR AS {column}"
    if bare == "BLOB":
        return f"'\\x' || hex({column}) AS {column}"
    if bare in {"TIMESTAMP_NS", "TIME_NS"}:  # Postgres has microseconds, and would round what DuckDB cuts off
        return f"{column}::{bare.removesuffix('_NS')} AS {column}"
    return column


def typed_value(name: str, sql_type: str) -> str:
    """SQL of DuckDB that undoes `csv_value` in what Postgres wrote as CSV."""
    column, bare = quote(name), bare_type(sql_type).strip()
    if _NESTED.match(bare):
        return f"{column}::JSON::{sql_type} AS {column}"
    if bare == "BLOB":
        return f"unhex(substr({column}, 3)) AS {column}"
    if bare == "DATE" or bare.startswith("TIMESTAMP"):  # Postgres ends with BC, DuckDB has it behind the day
        common_era = f"CASE WHEN {column} LIKE '% BC' THEN regexp_replace({column}, '^(\\S+)(.*) BC$', '\\1 (BC)\\2')"
        column = f"({common_era} ELSE {column} END)"
    return f"{column}::{sql_type} AS {quote(name)}"


def takes(existing: str, wanted: str) -> bool:
    """Whether a column of the type `existing`, in Postgres's own words, holds every value of the type `wanted`."""
    if existing == wanted or existing in _WIDER.get(wanted, ()):
        return True
    name, sizes = existing.partition("(")[0], re.findall(r"\d+", existing)
    if name == "character varying" and wanted == "text":
        return True  # a text that is too long is refused by the server
    if name != "numeric" or not wanted.startswith("numeric("):
        return False
    precision, scale = map(int, re.findall(r"\d+", wanted))
    return not sizes or (int(sizes[1]) >= scale and int(sizes[0]) - int(sizes[1]) >= precision - scale)
