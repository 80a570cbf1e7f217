"""The record of backfills: each as it was requested, and the partitions that it has finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster.ledger.record import dicts
from pip_dagster.ledger.rows import insert_rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class Backfill:
    """One row of `ledger.backfills`.

    `model_version` scores it from beginning to end; `pinned`: a person requested that version by number. `chunk`: the
    number of partitions per run, where it was requested.
    """

    backfill_id: str
    pipeline: str
    partition_keys: list[str]
    model_version: int
    pinned: bool
    as_known: bool
    why: str
    made_by: str
    made_at: datetime
    chunk: int | None = None

    @property
    def pinned_version(self) -> int | None:
        """The version that a person requested; None when the alias chose it."""
        return self.model_version if self.pinned else None


def insert_backfill(con: DuckDBPyConnection, backfill: Backfill) -> None:
    """Append it; the warehouse is the current catalog."""
    insert_rows(con, "backfills", [backfill])


def backfills_of(con: DuckDBPyConnection, pipeline: str) -> list[Backfill]:
    """A pipeline's backfills, the newest first."""
    sql = "SELECT * FROM ledger.backfills WHERE pipeline = $pipeline ORDER BY backfill_id DESC"
    return [Backfill(**row) for row in dicts(con.execute(sql, {"pipeline": pipeline}))]


def finished_keys(con: DuckDBPyConnection, backfill_id: str) -> set[str]:
    """The partitions that the backfill has finished."""
    sql = "SELECT DISTINCT partition_key FROM ledger.backfill_partitions WHERE backfill_id = $id"
    return {row[0] for row in con.execute(sql, {"id": backfill_id}).fetchall()}


def rolled_back_since(
    con: DuckDBPyConnection, pipeline: str, partition_keys: Sequence[str], began: datetime, *, but_by: str = ""
) -> list[tuple[str, str, str]]:
    """Partition, who and why, of those rolled back since then, except to scorings of the backfill `but_by`."""
    sql = """
      SELECT partition_key, arg_max(made_by, change_id), arg_max(why, change_id) FROM ledger.live_changes
      WHERE pipeline = $pipeline AND made_at > $began AND kind = 'rollback'
        AND partition_key IN (SELECT unnest($keys::VARCHAR[]))
        AND scoring_id NOT IN (
          SELECT scoring_id FROM ledger.backfill_partitions WHERE backfill_id = $id AND scoring_id IS NOT NULL)
      GROUP BY partition_key ORDER BY partition_key
    """
    values = {"pipeline": pipeline, "began": began, "keys": list(partition_keys), "id": but_by}
    return con.execute(sql, values).fetchall()


def finished_by_run(con: DuckDBPyConnection, run_id: str) -> dict[str, str]:
    """Partition → scoring, of those that a run of a backfill has finished."""
    sql = "SELECT partition_key, max(scoring_id) FROM ledger.backfill_partitions WHERE run_id = $run GROUP BY ALL"
    return dict(con.execute(sql, {"run": run_id}).fetchall())
