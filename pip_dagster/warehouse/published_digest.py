"""Digests of published rows, by partition and table: recorded as they are published, and computed again to verify.

A digest is of 64-bit hashes of the rows, which begin with a secret of the warehouse: who may write the published files
but not read the warehouse cannot compute one. It covers columns by name, each cast to the type that it was published
with, because a file's columns change when another publication adds some.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse.digest import OF_HASHES
from pip_dagster.warehouse.published_rows import Rows

if TYPE_CHECKING:
    from datetime import datetime

    from duckdb import DuckDBPyConnection


def secret_of(con: DuckDBPyConnection) -> str:
    """The secret of the warehouse, which is the current catalog."""
    row = con.execute("SELECT value FROM ledger.meta WHERE key = 'published_secret'").fetchone()
    return str(row[0]) if row else ""


def digest_sql(rows: str, columns: Mapping[str, str], secret: str, where: str = "true") -> str:
    """SQL of partition key, number of rows and digest of each partition; `rows` is a table or relation."""
    cast = ", ".join(f"{quote(name)}::{sql_type}" for name, sql_type in sorted(columns.items()))
    return (
        f"SELECT partition_key, count(*) AS rows, {OF_HASHES} AS digest "
        f"FROM (SELECT partition_key, hash({literal(secret)}, {cast}) AS h FROM {rows} WHERE {where}) GROUP BY 1"
    )


def record(
    con: DuckDBPyConnection, pipeline: str, file: str, published: Mapping[str, Rows], of_keys: str, at: datetime
) -> None:
    """Record the digests of partitions that were just written: `published` is table, in SQL → its rows.

    The file is attached, and the warehouse is the current catalog.
    """
    selects, secret, known = list[str](), secret_of(con), columns_by_digest(con)
    for table, rows in published.items():
        text = json.dumps(sorted(rows.columns.items()), ensure_ascii=False)
        columns = hashlib.sha256(text.encode()).hexdigest()[:16]
        if columns not in known:
            con.execute(f"INSERT INTO ledger.published_columns VALUES ({literal(columns)}, {literal(text)})")
            known[columns] = dict(rows.columns)
        selects.append(
            f"SELECT {literal(pipeline)}, partition_key, {literal(rows.table[1])}, {literal(file)}, rows, digest, "
            f"{literal(columns)}, {literal(at.isoformat())}::TIMESTAMPTZ "
            f"FROM ({digest_sql(table, rows.columns, secret, of_keys)})"
        )
    con.execute(f"INSERT INTO ledger.published_digests {' UNION ALL '.join(selects)}")


def columns_by_digest(con: DuckDBPyConnection) -> dict[str, dict[str, str]]:
    """Digest → the columns that it stands for, with their types."""
    found: Sequence[tuple[str, str]] = con.execute("SELECT DISTINCT * FROM ledger.published_columns").fetchall()
    return {digest: dict(json.loads(columns)) for digest, columns in found}
