"""Which rows of a pipeline are published: of live scorings, and all of its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pip_dagster.sql.names import REASON_COLUMNS, among, literal, quote, quote_all
from pip_dagster.warehouse import kinds
from pip_dagster.warehouse.kinds import PublishedKind
from pip_dagster.warehouse.published_rows import Rows
from pip_dagster.warehouse.tables import views_of

if TYPE_CHECKING:
    from datetime import datetime

    from duckdb import DuckDBPyConnection


def rows_of(
    con: DuckDBPyConnection, pipeline: str, keys: Sequence[str] | None, since: datetime | None = None
) -> list[Rows]:
    """What there is to publish of these partitions, or of all with None, for every published kind.

    The warehouse is the current catalog. Only the transaction in which this is called may read the rows. `since`: when
    the oldest scoring of these partitions was recorded; DuckDB skips what is older.
    """
    of_keys = "true" if keys is None else among("partition_key", keys)
    live_arms = f"ledger.live_arms WHERE pipeline = {literal(pipeline)} AND {of_keys}"
    if keys is None:
        live_arms = f"(SELECT DISTINCT partition_key, scoring_id FROM {live_arms})"
        of_live = f"scoring_id IN (SELECT scoring_id FROM {live_arms})"
        counted = con.execute(f"SELECT count(*) > count(DISTINCT partition_key) FROM {live_arms}").fetchone()
        is_split = bool(counted and counted[0])
    else:
        live = con.execute(f"SELECT DISTINCT partition_key, scoring_id FROM {live_arms}").fetchall()
        # Literals, so that DuckDB skips the row groups of other scorings.
        of_live = f"{of_keys} AND {among('scoring_id', [scoring for _, scoring in live])}"
        is_split = len({key for key, _ in live}) < len(live)
    views, none = views_of(con, pipeline), _without_rows(con, pipeline, of_keys)
    found = []
    for kind in kinds.published():
        table = (kind.schema or pipeline, kind.view or kind.name)
        select = None
        if kind.schema or kind.name in views:
            where = of_live if kind.live else of_keys
            where = f"pipeline = {literal(pipeline)} AND {of_keys}" if kind.schema else where
            if kind.scored_at and since:
                where += f" AND {kind.scored_at} >= {literal(since.isoformat())}::TIMESTAMPTZ"
            if kind.where_in:
                in_it = f"pipeline = {literal(pipeline)} AND {of_keys}"
                where += f" AND partition_key IN (SELECT partition_key FROM {kind.where_in} WHERE {in_it})"
            rows = f"{kind.in_sql(pipeline)} r"
            if kind.live == "row" and is_split:
                rows += _of_live_rows(con, kind, pipeline, of_live)
            shown = f"* EXCLUDE ({quote_all(kind.private)})" if kind.private else "*"
            select = f"SELECT {shown} FROM {rows} WHERE {where}"
        columns = {name: of for name, of, *_ in con.execute(f"DESCRIBE {select}").fetchall()} if select else {}
        structs = frozenset(name for name, of in columns.items() if of.startswith("STRUCT(") and of.endswith(")"))
        stored = {name: f"{of}[]" if name in structs else of for name, of in columns.items()}
        empty, of_scorings = kind.name in none, kind.scored_at is not None
        found.append(Rows(table, select, stored, kind.order, kind.always, structs, empty, of_scorings))
    return found


def _without_rows(con: DuckDBPyConnection, pipeline: str, of_keys: str) -> set[str]:
    """The kinds that have no rows for these partitions, by their `where_in`."""
    declared = [kind for kind in kinds.published() if kind.where_in]
    where = f"WHERE pipeline = {literal(pipeline)} AND {of_keys}"
    exists = ", ".join(f"EXISTS (FROM {kind.where_in} {where})" for kind in declared)
    found = con.execute(f"SELECT {exists}").fetchone() or ()
    return {kind.name for kind, there in zip(declared, found, strict=True) if not there}


def _of_live_rows(con: DuckDBPyConnection, kind: PublishedKind, pipeline: str, of_live: str) -> str:
    """A join that keeps the rows of the scoring that is live for their key. They share the key's columns."""
    columns = con.execute(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = $p "
        "AND table_name IN ($kind, 'scores') AND NOT list_contains($own, column_name) "
        "GROUP BY 1 HAVING count(*) = 2 ORDER BY 1",
        {"p": pipeline, "kind": kind.name, "own": sorted(REASON_COLUMNS)},
    ).fetchall()
    same = " AND ".join(f"p.{quote(name)} IS NOT DISTINCT FROM r.{quote(name)}" for (name,) in columns)
    return f" SEMI JOIN (SELECT * FROM {quote(pipeline)}.predictions WHERE {of_live}) p ON {same}"
