"""What is recorded of backfills: as they were asked for, and which partitions each is done with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster.ledger.record import dicts, say_deliberate
from pip_dagster.ledger.rollback_plan import ROLLBACK
from pip_dagster.sql.names import quote_all

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class Backfill:
    """One row of `ledger.backfills`.

    `model_version` is the one it scores with from beginning to end; `pinned` when it was asked for by number.
    `chunk`: partitions a run, where that was asked for.
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
    def live_why(self) -> str:
        """Why its partitions are live, for `ledger.live_changes`; a plan leaves alone what was pinned."""
        return say_deliberate(self.model_version if self.pinned else None, self.as_known, self.why)


def insert_backfill(con: DuckDBPyConnection, backfill: Backfill) -> None:
    """Append it; the warehouse is the current catalog."""
    values = asdict(backfill)
    slots = ", ".join("$" + name for name in values)
    con.execute(f"INSERT INTO ledger.backfills ({quote_all(values)}) VALUES ({slots})", values)


def backfills_of(con: DuckDBPyConnection, pipeline: str) -> list[Backfill]:
    """A pipeline's backfills, the newest first."""
    sql = "SELECT * FROM ledger.backfills WHERE pipeline = $pipeline ORDER BY backfill_id DESC"
    return [Backfill(**row) for row in dicts(con.execute(sql, {"pipeline": pipeline}))]


def finished_keys(con: DuckDBPyConnection, backfill_id: str) -> set[str]:
    """The partitions that the backfill is done with."""
    sql = "SELECT DISTINCT partition_key FROM ledger.backfill_partitions WHERE backfill_id = $id"
    return {row[0] for row in con.execute(sql, {"id": backfill_id}).fetchall()}


def rolled_back_since(
    con: DuckDBPyConnection, pipeline: str, partition_keys: Sequence[str], began: datetime, *, but_by: str = ""
) -> list[tuple[str, str, str]]:
    """Partition, who and why, of those that were rolled back since then, unless to what the backfill `but_by` made."""
    sql = f"""
      SELECT partition_key, arg_max(made_by, change_id), arg_max(why, change_id) FROM ledger.live_changes
      WHERE pipeline = $pipeline AND made_at > $began AND starts_with(run_id, '{ROLLBACK}')
        AND partition_key IN (SELECT unnest($keys::VARCHAR[]))
        AND scoring_id NOT IN (
          SELECT scoring_id FROM ledger.backfill_partitions WHERE backfill_id = $id AND scoring_id IS NOT NULL)
      GROUP BY partition_key ORDER BY partition_key
    """
    asked = {"pipeline": pipeline, "began": began, "keys": list(partition_keys), "id": but_by}
    return con.execute(sql, asked).fetchall()


def finished_by_run(con: DuckDBPyConnection, run_id: str) -> dict[str, str]:
    """Partition → scoring that a run of a backfill was done with."""
    sql = "SELECT partition_key, max(scoring_id) FROM ledger.backfill_partitions WHERE run_id = $run GROUP BY ALL"
    return dict(con.execute(sql, {"run": run_id}).fetchall())
