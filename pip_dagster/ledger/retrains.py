"""Retrainings that alarms started: a row when one is requested, and another for each thing that became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pip_dagster import clock
from pip_dagster.ledger.record import dicts
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.sql.names import quote_all

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

RetrainState = Literal["requested", "started", "succeeded", "failed"]
_BEFORE_THE_END: tuple[RetrainState, ...] = ("requested", "started")


@dataclass(frozen=True, kw_only=True)
class RetrainEntry:
    """One row of `ledger.retrains`.

    Attributes:
        alarm_ids: The alarms that held when it was requested.
        attempt: How many were requested while one of these alarms held, this one included.
        exit_code: Of a command that ended; None where it was killed, or is a job.
        run_id: The run of a job in Dagster.
        host: The machine on which a command was requested: only that one knows whether it runs.
        made_at: By the clock, since the cool-down is measured from it; the order of the rows is that of their ids and
            states.
    """

    retrain_id: str
    pipeline: str
    state: RetrainState
    alarm_ids: list[str]
    attempt: int
    target: str
    exit_code: int | None = None
    run_id: str | None = None
    host: str
    made_at: datetime
    made_by: str

    def become(self, state: RetrainState, *, exit_code: int | None = None, run_id: str | None = None) -> RetrainEntry:
        """The row for what became of it."""
        return replace(self, state=state, exit_code=exit_code, run_id=run_id or self.run_id, made_at=clock.wall())


@dataclass(frozen=True)
class Retraining:
    """A retraining: when it was requested, and its newest row."""

    requested_at: datetime
    now: RetrainEntry

    @property
    def is_over(self) -> bool:
        """Whether it has ended, one way or the other."""
        return self.now.state in ("succeeded", "failed")


def insert_retrains(con: DuckDBPyConnection, entries: Sequence[RetrainEntry]) -> None:
    """Append them, inside a transaction."""
    insert_rows(con, "retrains", entries)


def retrains_of(con: DuckDBPyConnection, pipeline: str) -> list[Retraining]:
    """Those of a pipeline, in the order of their requests."""
    columns = quote_all(each.name for each in fields(RetrainEntry))
    sql = (
        f"SELECT {columns} FROM ledger.retrains WHERE pipeline = $p "
        f"ORDER BY retrain_id, list_position({[*_BEFORE_THE_END]}, state) NULLS LAST"
    )
    rows: dict[str, list[RetrainEntry]] = {}
    for row in dicts(con.execute(sql, {"p": pipeline})):
        rows.setdefault(row["retrain_id"], []).append(RetrainEntry(**row))
    return [Retraining(each[0].made_at, each[-1]) for each in rows.values()]
