"""Verifies that the recorded digests of published rows are those of the rows that the warehouse has to publish."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pip_dagster.ledger.fault import Fault
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse import kinds
from pip_dagster.warehouse.published_digest import columns_by_digest, digest_sql, secret_of
from pip_dagster.warehouse.published_select import rows_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.warehouse.published_rows import Rows

# The other published tables are evidence: they get rows that no publication waits for.
_TABLES = {kind.name for kind in kinds.published() if kind.retention == "content" or kind.name == "partitions"}


def warehouse_faults(con: DuckDBPyConnection) -> Iterator[Fault]:
    """Partitions whose newest digest, of those in `temp.recorded`, is not of the warehouse's rows.

    Whoever can read the warehouse's secret can record a digest of rows that he wrote into a published file.
    """
    secret, known = secret_of(con), columns_by_digest(con)
    for (pipeline,) in con.execute("SELECT DISTINCT pipeline FROM temp.recorded ORDER BY 1").fetchall():
        # All partitions at once: each chunk of them would read the tables whole.
        for rows in rows_of(con, pipeline, None):
            if rows.select and rows.table[1] in _TABLES:
                yield from _of_table(con, pipeline, rows, secret, known)


def _of_table(
    con: DuckDBPyConnection,
    pipeline: str,
    rows: Rows,
    secret: str,
    known: dict[str, dict[str, str]],
) -> Iterator[Fault]:
    table = rows.table[1]
    of = f"pipeline = {literal(pipeline)} AND table_name = {literal(table)}"
    for (signature,) in con.execute(f"SELECT DISTINCT columns_digest FROM temp.recorded WHERE {of}").fetchall():
        columns = known.get(signature, {})
        missing = "".join(f", NULL AS {quote(name)}" for name in sorted(columns.keys() - rows.columns.keys()))
        recorded = f"SELECT * FROM temp.recorded WHERE {of} AND columns_digest = {literal(signature)}"
        where = f"partition_key IN (SELECT partition_key FROM ({recorded}))"
        found = digest_sql(f"(SELECT *{missing} FROM ({rows.stored}))", columns, secret, where)
        differing = con.execute(
            f"SELECT r.partition_key, r.file FROM ({recorded}) r LEFT JOIN ({found}) f "
            "ON f.partition_key = r.partition_key WHERE f.digest IS DISTINCT FROM r.digest ORDER BY ALL"
        )
        for key, file in differing.fetchall():
            what = "has other rows than those whose digest was recorded when it was published"
            yield Fault(
                None,
                "published",
                f"{pipeline}, partition {key}: {table} of the warehouse {what} in {file}: the warehouse was altered, "
                "or the file and its digest were",
            )
