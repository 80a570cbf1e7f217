"""Live changes: the newest change of a partition holds. Each is written with its entry in the audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.errors import WithdrawnError
from pip_dagster.ledger import audit
from pip_dagster.ledger.arms import Arm, insert_arms
from pip_dagster.ledger.record import LiveKind, RunInfo, ScoringEntry, dicts, new_id
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.sql.names import among, literal, quote_all

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class LiveChange:
    """One row of `ledger.live_changes`: from then on, the partition's live scoring is this one.

    `pinned_version`, `as_known`: what a person requested, where `kind` is pinned. `experiment`: the split or canary
    that decided the arms. `why` is for people; no program reads it.
    """

    change_id: str
    pipeline: str
    partition_key: str
    scoring_id: str
    why: str
    run_id: str
    made_by: str
    made_at: datetime
    kind: LiveKind
    pinned_version: int | None = None
    as_known: bool = False
    experiment: str | None = None

    def records(self, run: RunInfo) -> bool:
        """Whether this change already records what a person requested with the run."""
        same = (self.kind, self.pinned_version, self.as_known) == (run.kind, run.pinned_version, run.as_known)
        return same and self.made_at >= run.requested_at


def make_live(
    con: DuckDBPyConnection,
    entries: Sequence[ScoringEntry],
    run: RunInfo,
    why: str,
    arms: Sequence[Arm] = (),
    *,
    experiment: str | None = None,
    committed: DuckDBPyConnection | None = None,
) -> list[str]:
    """Point partitions of a pipeline at these scorings, and the buckets of `arms` at theirs. Record it in the audit.

    Returns the changes' ids. The newest change holds: its id sorts behind those that are `committed`, whatever the
    clocks of their machines show.

    Raises:
        WithdrawnError: a partition was rolled back after the run was requested.
    """
    pipeline = entries[0].pipeline
    newest = newest_changes(committed or con, pipeline, [entry.partition_key for entry in entries])
    changes = []
    for entry in entries:
        last = newest.get(entry.partition_key)
        if last and last.kind == "rollback" and last.made_at > run.requested_at:
            behind = last.made_at > clock.wall()
            at = (
                f", at {last.made_at:%Y-%m-%d %H:%M:%S %Z}: a machine's clock was ahead, or this one's is behind. "
                f"Launch it again, or use `pip-dagster backfill {pipeline}`"
                if behind
                else ""
            )
            raise WithdrawnError(
                f"Pipeline {pipeline}, partition {entry.partition_key} was {last.why} (by {last.made_by}{at})"
            )
        clock.seen(last.made_at if last else None)
        ids = (new_id(after=last.change_id if last else None), pipeline, entry.partition_key, entry.scoring_id)
        request = (run.kind, run.pinned_version, run.as_known)
        changes.append(LiveChange(*ids, why, run.run_id, run.made_by, clock.now(), *request, experiment))
    since = min(*(entry.made_at for entry in entries), *(change.made_at for change in changes))
    insert_live_changes(con, changes, [arms] * len(changes), committed, since=since)
    return [change.change_id for change in changes]


def insert_live_changes(
    con: DuckDBPyConnection,
    changes: Sequence[LiveChange],
    arms: Sequence[Sequence[Arm]],
    committed: DuckDBPyConnection | None = None,
    *,
    since: datetime | None = None,
) -> None:
    """Append changes of a pipeline, the arms of each, and their entries in the audit, inside a transaction.

    `since`: as of `audit.append_live`.
    """
    insert_rows(con, "live_changes", changes)
    of_change = zip(changes, arms, strict=True)
    insert_arms(con, {change.change_id: (change.pipeline, change.partition_key, each) for change, each in of_change})
    audit.append_live(con, [change.change_id for change in changes], committed, since=since)


def newest_changes(con: DuckDBPyConnection, pipeline: str, partition_keys: Sequence[str]) -> dict[str, LiveChange]:
    """Partition key → its newest live change, which holds; nothing for those that were never live."""
    columns = quote_all(field.name for field in fields(LiveChange))
    result = con.execute(
        f"SELECT {columns} FROM ledger.live_changes "
        f"WHERE pipeline = {literal(pipeline)} AND {among('partition_key', partition_keys)} "
        "ORDER BY change_id"  # a window costs more than the few older ones
    )
    return {row["partition_key"]: LiveChange(**row) for row in dicts(result)}


def live_change(con: DuckDBPyConnection, pipeline: str, partition_key: str) -> LiveChange | None:
    """The live change that holds for a partition; None where nothing is live."""
    return newest_changes(con, pipeline, [partition_key]).get(partition_key)


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
    """Record that the run's backfill has finished these partitions, in the transaction that finishes them."""
    if run.backfill_id:
        done = [(run.backfill_id, e.pipeline, e.partition_key, e.scoring_id, run.run_id) for e in entries]
        insert_rows(con, "backfill_partitions", [BackfillPartition(*each, clock.now()) for each in done])
