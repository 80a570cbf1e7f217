"""What the warehouse has to replay: the newest live partitions and the features that they were scored with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pip_dagster.errors import NoWarehouseError
from pip_dagster.flow.stage import Stage, keep, stored_columns
from pip_dagster.ledger.live_partitions import LivePartition, Revision
from pip_dagster.sql.names import among, quote, quote_all
from pip_dagster.warehouse.access import reading

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline


@dataclass(frozen=True)
class Stored:
    """`newest_columns`: those of the newest feature table (None: nothing is stored); `columns`: those of each table."""

    newest_columns: dict[str, str] | None = None
    partitions: tuple[LivePartition, ...] = ()
    columns: dict[str, dict[str, str]] = field(default_factory=dict)


def read_stored(con: DuckDBPyConnection, pipeline: Pipeline, last: int | None) -> Stored:
    """The `last` newest live partitions that have scored rows, or all, oldest first; the warehouse is open meanwhile.

    Raises:
        WarehouseError: it cannot be opened.
    """
    name = pipeline.spec.name
    try:
        with reading(con, pipeline.project, purpose=f"{name}: reading the ledger for gates"):
            return _stored(con, name, last)
    except NoWarehouseError:
        return Stored()


def _stored(con: DuckDBPyConnection, name: str, last: int | None) -> Stored:
    newest = con.execute(
        "SELECT table_name FROM ledger.extractions WHERE pipeline = $p ORDER BY extraction_id DESC LIMIT 1",
        {"p": name},
    ).fetchone()
    if newest is None:
        return Stored()
    rows = con.execute(
        "SELECT s.partition_key, s.partition_start, s.partition_end, s.scoring_id, s.table_name, "
        "  s.rows_scored, s.feature_revision, any_value(used.table_name), max_by(e.revision, e.extraction_id), "
        "  max_by(e.table_name, e.extraction_id) "
        "FROM ledger.live l JOIN ledger.scorings s ON s.scoring_id = l.scoring_id "
        "JOIN ledger.extractions used ON used.pipeline = $p AND used.revision = s.feature_revision "
        "JOIN ledger.extractions e ON e.pipeline = $p AND e.partition_key = s.partition_key "
        "WHERE l.pipeline = $p AND s.rows_scored > 0 AND s.purged_at IS NULL "
        f"GROUP BY ALL ORDER BY s.partition_start DESC LIMIT {'ALL' if last is None else last}",
        {"p": name},
    ).fetchall()
    partitions = tuple(_live_partition(row) for row in reversed(rows))
    tables = {newest[0]} | {each.table for partition in partitions for each in partition.revisions}
    columns = {table: stored_columns(con, name, table) for table in sorted(tables)}
    return Stored(columns[newest[0]], partitions, columns)


def _live_partition(row: Sequence[Any]) -> LivePartition:
    key, start, end, scoring_id, scores_table, scored, *revisions = row
    used, newest = Revision(*revisions[:2]), Revision(*revisions[2:])
    return LivePartition(
        *(key, start, end, scoring_id, scores_table, scored), (used,) if used == newest else (used, newest)
    )


def load(stage: Stage, pipeline: Pipeline, table: str, chosen: dict[LivePartition, Revision]) -> None:
    """Stage the features of these partitions' live rows, from one feature table.

    A row that is not live was quarantined when its partition was scored, and is not compared.
    """
    spec, keys = pipeline.spec, ("partition_key", *pipeline.spec.features.key)
    by_table: dict[str, list[str]] = {}
    for partition in chosen:
        by_table.setdefault(partition.scores_table, []).append(partition.scoring_id)
    live = " UNION ALL ".join(
        f"SELECT {quote_all(keys)} FROM {quote(spec.name)}.{quote(scores)} WHERE {among('scoring_id', ids)}"
        for scores, ids in by_table.items()
    )
    purpose = f"{spec.name}: reading features for gates"
    with reading(stage.con, pipeline.project, purpose=purpose):
        stage.load(spec.name, table, [revision.revision for revision in chosen.values()])
        kept = keep(stage.con, "live_keys", live)
    same = " AND ".join(f"k.{quote(key)} = f.{quote(key)}" for key in keys)
    stage.remove(f"NOT EXISTS (SELECT 1 FROM {kept} k WHERE {same})")
