"""What was sent of alarms: recorded after it reached its destination, so that a kill sends it again, never loses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pip_dagster.ledger.record import dicts
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.sql.names import quote_all

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Sent = Literal["page", "digest", "resolved"]


@dataclass(frozen=True)
class Delivery:
    """One row of `ledger.alarm_deliveries`: an alarm as its row `sequence` said, at one destination."""

    pipeline: str
    alarm_id: str
    sequence: int
    kind: Sent
    destination: str
    made_at: datetime


def insert_deliveries(con: DuckDBPyConnection, deliveries: Sequence[Delivery]) -> None:
    """Append them, inside a transaction."""
    insert_rows(con, "alarm_deliveries", deliveries)


def deliveries_of(con: DuckDBPyConnection, pipeline: str) -> list[Delivery]:
    """All of a pipeline, oldest first."""
    columns = quote_all(each.name for each in fields(Delivery))
    sql = f"SELECT {columns} FROM ledger.alarm_deliveries WHERE pipeline = $p ORDER BY made_at"
    return [Delivery(**row) for row in dicts(con.execute(sql, {"p": pipeline}))]
