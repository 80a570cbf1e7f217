"""Rows of the ledger from dataclasses, whose fields are its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pip_dagster.sql.names import quote, quote_all
from pip_dagster.warehouse.arrow import arrow_rows

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from duckdb import DuckDBPyConnection

# By how the annotation of a field begins; the others are texts. A field's metadata may name another `sql_type`.
_TYPES = {
    "int": "BIGINT",
    "float": "DOUBLE",
    "bool": "BOOLEAN",
    "datetime": "TIMESTAMPTZ",
    "list[str]": "VARCHAR[]",
    "list[int]": "BIGINT[]",
    "list[float]": "DOUBLE[]",
}

_GIVEN = "pip_given_ledger_rows"


def insert_rows(con: DuckDBPyConnection, table: str, rows: Sequence[DataclassInstance]) -> None:
    """Append rows of one kind to `ledger.<table>`, all in one statement. The warehouse is the current catalog."""
    if not rows:
        return
    types = _sql_types(type(rows[0]))
    values: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in types}
    columns = ", ".join(f"unnest(${name}::{sql_type}[])" for name, sql_type in types.items())
    con.execute(f"INSERT INTO ledger.{quote(table)} ({quote_all(types)}) SELECT {columns}", values)


def insert_many(con: DuckDBPyConnection, table: str, rows: Sequence[DataclassInstance]) -> None:
    """The same of thousands of rows with lists, which bound as parameters take five times as long."""
    import pyarrow as pa

    if not rows:
        return
    names = [each.name for each in fields(rows[0])]
    with arrow_rows(con, _GIVEN, pa.table({name: [getattr(row, name) for row in rows] for name in names})):
        con.execute(f"INSERT INTO ledger.{quote(table)} BY NAME SELECT * FROM {_GIVEN}")


@lru_cache
def _sql_types(kind: type[DataclassInstance]) -> dict[str, str]:
    return {
        field.name: field.metadata.get("sql_type") or _TYPES.get(str(field.type).split(" | ")[0], "VARCHAR")
        for field in fields(kind)
    }
