"""Arrow rows that SQL reads under a name, and queries as Arrow tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection


@contextmanager
def arrow_rows(con: DuckDBPyConnection, name: str, rows: Any) -> Iterator[None]:
    """Let the SQL of `con` read Arrow rows, a table or the capsule of a stream, as `name`."""
    _finish(con)
    con.register(name, rows)
    try:
        yield
    finally:
        con.unregister(name)


def table_of(con: DuckDBPyConnection, query: str) -> pa.Table:
    """Return what a query without parameters selects."""
    _finish(con)
    return con.sql(query).to_arrow_table()


def _finish(con: DuckDBPyConnection) -> None:
    """End what an earlier `execute` has left: DuckDB 2 counts a result as open after `fetchone` has read its only row.

    It then refuses `register` and `sql`, but not `execute`.
    """
    con.execute("SELECT 1").fetchall()
