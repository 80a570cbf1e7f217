"""A pipeline's own tables: one for each set of columns it has ever had, and views that join them.

Feature SQL and models change. Rather than alter a table that holds history, rows with other columns get a table of
their own, named by the digest of its columns. A view of the kind's name unites them. So a past row keeps the types it
was scored with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pip_dagster.declaration.lake import unkept_type
from pip_dagster.errors import DeclarationError
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse import advisory, kinds
from pip_dagster.warehouse.buckets import bucket_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def ensure_table(con: DuckDBPyConnection, pipeline: str, kind: str, columns: Mapping[str, str]) -> str:
    """Create the table of this kind for `columns`, and the pipeline's views, where absent; the table's name, unquoted.

    Call it inside the transaction that fills the table, with the warehouse as the current catalog.

    Raises:
        DeclarationError: a column has a type that a lake would not return unchanged.
        ValueError: `kinds` lists no such kind with a table for each set of columns.
    """
    if kind not in {each.name for each in kinds.with_column_sets()}:
        raise ValueError(f"{kind!r} is not a kind of table in warehouse/kinds.py; add it there")
    digest = hashlib.sha256(json.dumps(list(columns.items())).encode()).hexdigest()
    name = f"{kind}__{digest[:8]}"
    if not is_there(con, pipeline, name):
        if advisory.is_shared(con):
            check_kept(pipeline, kind, columns)
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(pipeline)}")
        body = ", ".join(f"{quote(column)} {sql_type}" for column, sql_type in columns.items())
        con.execute(f"CREATE TABLE {quote(pipeline)}.{quote(name)} ({body})")
        refresh_views(con, pipeline)
    return name


def check_kept(pipeline: str, kind: str, columns: Mapping[str, str]) -> None:
    """Refuse columns that a lake would not return unchanged.

    Raises:
        DeclarationError: names the first, with the cast to write.
    """
    for column, sql_type in columns.items():
        if unkept := unkept_type(sql_type):
            raise DeclarationError(
                f"Pipeline {pipeline}: column {column!r} of its {kind} is {sql_type}, and a DuckLake does not return "
                f"{unkept} unchanged. Cast it in the feature SQL, or in the decision: whole numbers to BIGINT or "
                "DECIMAL(38, 0) (a sum() of whole numbers is a HUGEINT), anything else to VARCHAR."
            )


def refresh_views(con: DuckDBPyConnection, pipeline: str) -> None:
    """Rebuild the pipeline's views, after a table or a way to assign rows to arms was added."""
    rows = con.execute(
        "SELECT table_name FROM duckdb_tables() "
        "WHERE database_name = current_database() AND schema_name = $schema ORDER BY table_oid",
        {"schema": pipeline},
    ).fetchall()
    present = [row[0] for row in rows]
    schema = quote(pipeline)
    for kind in kinds.with_column_sets():
        tables = [name for name in present if name.startswith(kind.name + "__")]
        if tables:
            union = " UNION ALL BY NAME ".join(f"SELECT * FROM {schema}.{quote(name)}" for name in tables)
            if kind.name == "quarantine":
                union = _with_resolution(pipeline, union)
            con.execute(f"CREATE OR REPLACE VIEW {kind.in_sql(pipeline)} AS {union}")
    if present:
        drift = f"SELECT * EXCLUDE (pipeline) FROM ledger.live_drift WHERE pipeline = {literal(pipeline)}"
        con.execute(f"CREATE OR REPLACE VIEW {schema}.drift AS {drift}")
    if any(name.startswith("scores__") for name in present):
        con.execute(f"CREATE OR REPLACE VIEW {schema}.predictions AS {predictions_select(con, pipeline)}")
        con.execute(
            f"CREATE OR REPLACE VIEW {schema}.performance AS SELECT * EXCLUDE (is_live) FROM "
            f"ledger.performance_figures WHERE is_live AND pipeline = {literal(pipeline)}"
        )
        con.execute(
            f"CREATE OR REPLACE VIEW {schema}.estimates AS SELECT * EXCLUDE (is_live) FROM ledger.graded_estimates "
            f"WHERE is_live AND pipeline = {literal(pipeline)}"
        )


def _with_resolution(pipeline: str, rows: str) -> str:
    """Quarantined rows and when each was resolved: by the first later live scoring that did not quarantine its key.

    Of a row that was quarantined by several attempts, only the newest is open: the others were resolved by the next.
    """
    attempts = "(PARTITION BY partition_key, row_key ORDER BY scoring_id)"
    return (
        f"WITH kept AS (SELECT *, lead(scoring_id) OVER {attempts} AS pip_next FROM ({rows})), resolved AS ("
        "SELECT k.scoring_id, k.row_key, min(c.made_at) AS resolved_at FROM kept k "
        f"JOIN ledger.live_changes c ON c.pipeline = {literal(pipeline)} AND c.partition_key = k.partition_key "
        "AND c.change_id > k.scoring_id "
        "ANTI JOIN kept other ON other.scoring_id = c.scoring_id AND other.row_key = k.row_key GROUP BY ALL) "
        "SELECT k.* EXCLUDE (pip_next), least(r.resolved_at, n.made_at) AS resolved_at FROM kept k "
        "LEFT JOIN resolved r ON r.scoring_id = k.scoring_id AND r.row_key = k.row_key "
        f"LEFT JOIN ledger.scorings n ON n.pipeline = {literal(pipeline)} AND n.scoring_id = k.pip_next"
    )


def predictions_select(con: DuckDBPyConnection, pipeline: str) -> str:
    """The SELECT behind `<pipeline>.predictions`: each row by the scoring that is live for it, with its model."""
    return (
        "SELECT s.*, e.model_name, e.model_version, e.feature_revision, e.made_at AS scored_at, "
        "coalesce(e.provisional, false) AS provisional, l.arm "
        f"FROM {quote(pipeline)}.scores s "
        # The partition too: a query for one then does not aggregate the live changes of all.
        f"JOIN ledger.live_arms l ON l.pipeline = {literal(pipeline)} AND l.partition_key = s.partition_key "
        "AND l.scoring_id = s.scoring_id "
        f"JOIN ledger.scorings e ON e.scoring_id = s.scoring_id WHERE {live_row(con, pipeline)}"
    )


def live_row(con: DuckDBPyConnection, pipeline: str, row: str = "s", live: str = "l") -> str:
    """SQL of whether `row`, of scores, lies in the buckets that `live`, of `ledger.live_arms`, gives to its scoring.

    It costs nothing for a pipeline that was never split. A split that the views do not know is an error, not no rows.
    """
    found = con.execute(
        "SELECT DISTINCT salt, unit FROM ledger.arms WHERE pipeline = $pipeline ORDER BY ALL", {"pipeline": pipeline}
    ).fetchall()
    cases = "".join(
        f" WHEN {live}.salt = {literal(salt)} AND {live}.unit = {literal(unit)} "
        f"THEN {bucket_sql(salt, json.loads(unit), row + '.')} BETWEEN {live}.low AND {live}.high - 1"
        for salt, unit in found
    )
    unknown = f"ledger.arms has a split of {pipeline} that its views do not know: it was not made by pip_dagster."
    # DuckDB may evaluate this on other pipelines' rows too, before a join excludes them.
    other = f" WHEN {live}.pipeline <> {literal(pipeline)} THEN false"
    return f"CASE WHEN {live}.low IS NULL THEN true{cases}{other} ELSE error({literal(unknown)}) END"


def is_there(con: DuckDBPyConnection, schema: str, table: str) -> bool:
    """Whether this table exists."""
    import duckdb

    if not advisory.is_shared(con):  # in DuckDB 2.0 a failing query ends the transaction
        found = con.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE database_name = current_database() "
            # Literals: to bind a parameter, DuckDB imports pandas, for which `status` would wait.
            f"AND schema_name = {literal(schema)} AND table_name = {literal(table)}"
        ).fetchone()
        return bool(found and found[0])
    try:  # listing all tables is slow in a lake
        con.execute(f"SELECT 1 FROM {quote(schema)}.{quote(table)} LIMIT 0")
    except duckdb.CatalogException:
        return False
    return True


def views_of(con: DuckDBPyConnection, pipeline: str) -> set[str]:
    """The names of the pipeline's views."""
    rows = con.execute(
        "SELECT view_name FROM duckdb_views() WHERE database_name = current_database() AND schema_name = $schema",
        {"schema": pipeline},
    ).fetchall()
    return {row[0] for row in rows}
