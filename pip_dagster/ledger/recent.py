"""What the newest live partitions of each pipeline cost and found, in the warehouse or as published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.ledger.record import dicts
from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_RECENT = """
  SELECT pipeline, partition_key, scoring_id, epoch_us(partition_end) AS partition_end, rows_scored, rows_quarantined,
         findings, seconds, {cpu_seconds} AS cpu_seconds, {peak_memory} AS peak_memory, {lock_seconds} AS lock_seconds,
         model_name, model_version, model_digest, engine, device, threads, epoch_us(made_at) AS made_at
  FROM ledger.partitions WHERE is_live AND {where}
  QUALIFY row_number() OVER (PARTITION BY pipeline ORDER BY partition_start DESC) <= {last}
  ORDER BY pipeline, partition_start DESC
"""
_UNTIL = (
    "pipeline = {pipeline} AND partition_start <= (SELECT max(partition_start) FROM ledger.partitions "
    "WHERE pipeline = {pipeline} AND is_live AND partition_key = {key})"
)
_OPTIONAL = ("live_change", "cpu_seconds", "peak_memory", "lock_seconds")


@dataclass(frozen=True)
class RecentPartition:
    """A live partition's scoring. What an older version did not record is None."""

    pipeline: str
    partition_key: str
    scoring_id: str
    partition_end: datetime
    rows_scored: int | None
    rows_quarantined: int | None
    findings: str | None
    seconds: float | None
    cpu_seconds: float | None
    peak_memory: int | None
    lock_seconds: float | None
    model_name: str
    model_version: int | None
    model_digest: str | None
    engine: str
    device: str | None
    threads: int | None
    made_at: datetime | None

    @property
    def rows(self) -> int | None:
        """The rows that its features had."""
        known = self.rows_scored is not None and self.rows_quarantined is not None
        return (self.rows_scored or 0) + (self.rows_quarantined or 0) if known else None

    @property
    def unseen(self) -> dict[str, int]:
        """Feature → how many rows had a category that its model never saw."""
        found = json.loads(self.findings) if self.findings else {}
        return dict(found.get("unseen_category", {}).get("rows", {}))

    @property
    def rows_per_cpu_second(self) -> float | None:
        """None where one of the two is not known, or nothing was scored."""
        return self.rows_scored / self.cpu_seconds if self.rows_scored and self.cpu_seconds else None

    @property
    def computed_by(self) -> tuple[object, ...]:
        """What decides its throughput."""
        return self.engine, self.device, self.threads, self.model_digest


def recent_partitions(
    con: DuckDBPyConnection, last: int, *, pipeline: str | None = None, key: str | None = None
) -> dict[str, list[RecentPartition]]:
    """Pipeline → its newest live partitions, newest first; with `key`, those up to this one."""
    where = "true" if pipeline is None else f"pipeline = {literal(pipeline)}"
    if pipeline is not None and key is not None:
        where = _UNTIL.format(pipeline=literal(pipeline), key=literal(key))
    found: dict[str, list[RecentPartition]] = {}
    for row in dicts(con.execute(_RECENT.format(**columns_there(con), where=where, last=last))):
        moments = {name: _instant(row[name]) for name in ("partition_end", "made_at")}
        found.setdefault(row["pipeline"], []).append(RecentPartition(**row | moments))
    return found


def _instant(micros: int | None) -> datetime | None:
    """None for a record of an infinite time, which is damage."""
    return None if micros is None else clock.instant(micros)


def columns_there(con: DuckDBPyConnection) -> dict[str, str]:
    """Column → itself, or NULL in files that a version without it published."""
    there = {row[0] for row in con.execute("DESCRIBE ledger.partitions").fetchall()}
    return {name: name if name in there else "NULL" for name in _OPTIONAL}
