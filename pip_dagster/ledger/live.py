"""What is live: the newest change of a partition holds, and is written with the audit's word of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pip_dagster.errors import WithdrawnError
from pip_dagster.ledger import audit
from pip_dagster.ledger.arms import Arm, insert_arms
from pip_dagster.ledger.record import RunInfo, ScoringEntry, dicts, new_id
from pip_dagster.ledger.rollback_plan import ROLLBACK
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.sql.names import among, literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class LiveChange:
    """One row of `ledger.live_changes`: from then on, the partition's live scoring is this one."""

    change_id: str
    pipeline: str
    partition_key: str
    scoring_id: str
    why: str
    run_id: str
    made_by: str
    made_at: datetime


def make_live(
    con: DuckDBPyConnection,
    entries: Sequence[ScoringEntry],
    run: RunInfo,
    why: str,
    arms: Sequence[Arm] = (),
    *,
    committed: DuckDBPyConnection | None = None,
) -> list[str]:
    """Point partitions of a pipeline at these scorings, the buckets of `arms` at theirs; tell the audit.

    Returns the changes' ids. The newest change holds: it is later than those that are `committed`, whatever the clocks
    of their machines say.

    Raises:
        WithdrawnError: a partition was rolled back since the run was asked for.

    """
    pipeline = entries[0].pipeline
    of_these = among("partition_key", [entry.partition_key for entry in entries])
    newest = {
        row["partition_key"]: row
        for row in dicts(
            (committed or con).execute(
                "SELECT partition_key, change_id, run_id, made_at, made_by, why FROM ledger.live_changes "
                f"WHERE pipeline = {literal(pipeline)} AND {of_these} "
                "QUALIFY row_number() OVER (PARTITION BY partition_key ORDER BY change_id DESC) = 1"
            )
        )
    }
    for key, last in newest.items():
        if last["run_id"].startswith(ROLLBACK) and last["made_at"] > run.asked_at:
            raise WithdrawnError(f"Pipeline {pipeline}, partition {key} was {last['why']} (by {last['made_by']})")
    changes = []
    for entry in entries:
        last = newest.get(entry.partition_key, {})
        names = (new_id(after=last.get("change_id")), pipeline, entry.partition_key, entry.scoring_id)
        changes.append(LiveChange(*names, why, run.run_id, run.made_by, datetime.now(UTC)))
    insert_rows(con, "live_changes", changes)
    insert_arms(con, {change.change_id: (pipeline, change.partition_key, arms) for change in changes})
    ids = [change.change_id for change in changes]
    audit.tell_live(con, ids, committed)
    return ids


@dataclass(frozen=True)
class BackfillPartition:
    """One row of `ledger.backfill_partitions`."""

    backfill_id: str
    pipeline: str
    partition_key: str
    scoring_id: str
    run_id: str
    made_at: datetime


def note_backfill(con: DuckDBPyConnection, entries: Sequence[ScoringEntry], run: RunInfo) -> None:
    """Write down that the run's backfill is done with these partitions, in the transaction that does them."""
    if run.backfill_id:
        done = [(run.backfill_id, e.pipeline, e.partition_key, e.scoring_id, run.run_id) for e in entries]
        insert_rows(con, "backfill_partitions", [BackfillPartition(*each, datetime.now(UTC)) for each in done])


def live_change(con: DuckDBPyConnection, pipeline: str, partition_key: str) -> tuple[str, str] | None:
    """The partition's live scoring, and why it was made live."""
    row = con.execute(
        "SELECT scoring_id, why FROM ledger.live_changes WHERE pipeline = $pipeline AND partition_key = $key "
        "ORDER BY change_id DESC LIMIT 1",
        {"pipeline": pipeline, "key": partition_key},
    ).fetchone()
    return (row[0], row[1]) if row else None
