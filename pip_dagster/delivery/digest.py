"""The digest by which delivered rows are compared with what a target has: independent of the order of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pip_dagster.sql.names import quote
from pip_dagster.warehouse.digest import OF_HASHES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def digest_of(con: DuckDBPyConnection, rows: str, columns: Mapping[str, str]) -> tuple[int, str]:
    """How many rows a relation in SQL has, and the digest of their values, each cast to its type in `columns`.

    It is compared with one of the same DuckDB only: another version may hash otherwise.
    """
    cast = ", ".join(f"{quote(name)}::{sql_type}" for name, sql_type in columns.items())
    select = f"SELECT count(*), {OF_HASHES} FROM (SELECT hash({cast}) AS h FROM {rows})"
    count, digest = con.execute(select).fetchall()[0]
    return int(count), str(digest)
