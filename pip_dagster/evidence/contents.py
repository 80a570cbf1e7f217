"""Every stored row against what the ledger recorded of it: features, scores, quarantine and reasons.

One pass over each table, in SQL: DuckDB streams the rows, and only what differs is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pip_dagster.ledger.fault import Fault
from pip_dagster.plural import plural
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse.digest import ALGORITHM, digest_sql, row_set_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Of a scoring, or a revision of features: its partition, how many rows it has, and their digest.
_RECORDED = {
    "scores": (
        "SELECT scoring_id AS id, partition_key, rows_scored AS rows, score_digest AS digest, "
        "purged_at IS NOT NULL AS purged FROM ledger.scorings WHERE pipeline = {pipeline} AND table_name = {table}"
    ),
    "features": (
        "SELECT DISTINCT revision AS id, partition_key, rows_extracted AS rows, feature_digest AS digest, "
        "purged_at IS NOT NULL AS purged FROM ledger.extractions WHERE pipeline = {pipeline} AND table_name = {table}"
    ),
}
IDS = {"scores": "scoring_id", "features": "revision"}
# Columns that no digest covers: the id, and what the recorded rows had not yet.
_UNCOVERED = {"scores": {"scoring_id"}, "features": {"revision", "partition_key"}}
_BY = {"scores": "scoring", "features": "revision"}

_DIFFERENCES = """
  WITH found (id, partition_key, n, total, bits) AS
    (SELECT {id}, any_value(partition_key), {row_set} FROM {rows} GROUP BY {id}),
  recorded AS ({recorded})
  SELECT coalesce(r.id, f.id), coalesce(r.partition_key, f.partition_key), coalesce(f.n, 0), r.rows, r.id IS NULL,
    coalesce(r.purged, false)
  FROM found f FULL JOIN recorded r ON r.id = f.id
  WHERE r.id IS NULL OR (r.purged AND f.n > 0) OR (starts_with(r.digest, {algorithm}) AND r.digest <> {digest})
  ORDER BY 2, 1
"""


def content_faults(con: DuckDBPyConnection, progress: Callable[[str], object] = lambda text: None) -> Iterator[Fault]:
    """Stored rows that are not those that were recorded, by pipeline, partition and table.

    The warehouse is the current catalog.
    """
    listed = (
        "SELECT pipeline, table_name FROM ledger.extractions WHERE table_name <> '' "
        "UNION SELECT pipeline, table_name FROM ledger.scorings WHERE table_name IS NOT NULL"
    )
    named = {*con.execute(listed).fetchall()}
    columns = columns_of_tables(con, {pipeline for pipeline, _ in named})
    for pipeline, table in sorted(named - columns.keys()):
        yield Fault(None, "rows", f"the table {pipeline}.{table} is gone, with the rows that the ledger names")
    for (pipeline, table), of in sorted(columns.items()):
        kind = table.partition("__")[0]
        if kind not in (*_RECORDED, "quarantine", "reasons"):
            continue
        progress(f"verifying {pipeline}.{table}")
        if kind in _RECORDED:
            yield from _of_table(con, pipeline, table, of)
        else:
            yield from _of_scorings(con, pipeline, table)
    yield from _of_quarantine(con, [table for table in columns if table[1].startswith("quarantine__")])


def covered_columns(kind: str, columns: Mapping[str, str]) -> dict[str, str]:
    """Those of a table of scores or features that the digest of its rows covers."""
    return {name: of for name, of in columns.items() if name not in _UNCOVERED[kind]}


def _of_table(con: DuckDBPyConnection, pipeline: str, table: str, columns: Mapping[str, str]) -> Iterator[Fault]:
    """The scorings or revisions whose rows in this table have another digest than recorded."""
    kind = table.partition("__")[0]
    covered = covered_columns(kind, columns)
    query = _DIFFERENCES.format(
        id=IDS[kind],
        row_set=row_set_sql(covered),
        rows=f"{quote(pipeline)}.{quote(table)}",
        recorded=_RECORDED[kind].format(pipeline=literal(pipeline), table=literal(table)),
        digest=digest_sql(covered, "coalesce(f.n, 0)", "coalesce(f.total, 0)", "coalesce(f.bits, 0)"),
        algorithm=literal(f"{ALGORITHM}:"),
    )
    for of, key, now, recorded, stray, purged in con.execute(query).fetchall():
        where = f"{pipeline}, partition {key}: {_BY[kind]} {of} in {table}"
        if stray:
            yield Fault(None, "rows", f"{where} has {plural(now, 'row')}, and the ledger knows no such {_BY[kind]}")
        elif purged:
            yield Fault(None, "rows", f"{where} has {plural(now, 'row')}, although its contents were purged")
        elif now != recorded:
            yield Fault(None, "rows", f"{where} has {plural(now, 'row')}; {recorded or 0:,} were recorded")
        else:
            yield Fault(
                None, "rows", f"{where} has other values in its {plural(now, 'row')} than its recorded digest covers"
            )


def _of_scorings(con: DuckDBPyConnection, pipeline: str, table: str) -> Iterator[Fault]:
    """Rows beside the scores, whose values anchors cover: of no scoring, or of another partition."""
    rows = (
        f"SELECT scoring_id, partition_key, count(*) AS n FROM {quote(pipeline)}.{quote(table)} "
        "GROUP BY scoring_id, partition_key"
    )
    query = (
        f"SELECT f.scoring_id, f.partition_key, f.n FROM ({rows}) f ANTI JOIN ledger.scorings s "
        f"ON s.scoring_id = f.scoring_id AND s.partition_key = f.partition_key AND s.pipeline = {literal(pipeline)} "
        "ORDER BY ALL"
    )
    for of, key, now in con.execute(query).fetchall():
        what = f"scoring {of} in {table} has {plural(now, 'row')}, and the ledger knows no such scoring"
        yield Fault(None, "rows", f"{pipeline}, partition {key}: {what}")


def _of_quarantine(con: DuckDBPyConnection, tables: Sequence[tuple[str, str]]) -> Iterator[Fault]:
    """Scorings that have another number of rows in quarantine than recorded."""
    if not tables:
        return
    union = " UNION ALL ".join(f"SELECT scoring_id FROM {quote(space)}.{quote(name)}" for space, name in tables)
    query = (
        "SELECT s.pipeline, s.partition_key, s.scoring_id, f.n, s.rows_quarantined FROM ledger.scorings s "
        f"JOIN (SELECT scoring_id, count(*) AS n FROM ({union}) GROUP BY 1) f ON f.scoring_id = s.scoring_id "
        "WHERE f.n <> coalesce(s.rows_quarantined, 0) ORDER BY ALL"
    )
    for pipeline, key, of, now, recorded in con.execute(query).fetchall():
        what = f"scoring {of} has {plural(now, 'row')} in quarantine; {recorded or 0:,} were recorded"
        yield Fault(None, "rows", f"{pipeline}, partition {key}: {what}")


def columns_of_tables(con: DuckDBPyConnection, pipelines: set[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Pipeline and table, of those with a set of columns → its columns with their types."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    select = (
        "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() "
        "WHERE database_name = current_database() ORDER BY schema_name, table_name, column_index"
    )
    for pipeline, table, column, of in con.execute(select).fetchall():
        if pipeline in pipelines and "__" in table:
            found.setdefault((pipeline, table), {})[column] = of
    return found
