"""Partitions that nobody is served: blocked or failed, with no scoring live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.ledger.record import dicts
from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# As many of the newest partitions as a report shows.
LAST = 90
_NOT_LIVE = """
  SELECT pipeline, partition_key, CASE status WHEN 'blocked' THEN 'blocked' ELSE 'failed' END AS status, reason FROM (
    SELECT pipeline, partition_key, max(partition_start) AS start, arg_max(status, scoring_id) AS status,
           coalesce(arg_max_null(reason, scoring_id), '') AS reason, coalesce(bool_or(is_live), false) AS is_live
    FROM ledger.partitions WHERE role = 'champion' AND {where} GROUP BY pipeline, partition_key
    QUALIFY row_number() OVER (PARTITION BY pipeline ORDER BY start DESC) <= {last}
  ) WHERE NOT is_live ORDER BY pipeline, start DESC
"""


@dataclass(frozen=True)
class NotLive:
    """A partition whose newest attempt was blocked or failed, and of which no scoring is live."""

    pipeline: str
    partition_key: str
    status: str
    reason: str


def not_live(con: DuckDBPyConnection, pipeline: str | None = None) -> list[NotLive]:
    """Those among the newest partitions of a pipeline, or of all, the newest first.

    `con` reads `ledger.partitions`, of the warehouse or as published.
    """
    where = "TRUE" if pipeline is None else f"pipeline = {literal(pipeline)}"
    return [NotLive(**row) for row in dicts(con.execute(_NOT_LIVE.format(where=where, last=LAST)))]
