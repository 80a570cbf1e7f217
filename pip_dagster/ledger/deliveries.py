"""What was delivered to which target, and what is pending: a live change that a target does not have yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pip_dagster.ledger.record import dicts
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.sql.names import among, literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

State = Literal["delivered", "failed"]


@dataclass(frozen=True)
class DeliveryEntry:
    """One row of `ledger.deliveries`: a change that a target got, or did not get in so many attempts of a run."""

    delivery_id: str
    pipeline: str
    target: str
    kind: str
    partition_key: str
    change_id: str
    declaration: str
    state: State
    attempts: int
    rows: int | None
    digest: str | None
    place: str | None
    receipt: str | None
    error: str | None
    seconds: float
    run_id: str
    made_by: str
    made_at: datetime


@dataclass(frozen=True)
class Pending:
    """A live change that a target does not have.

    `error`: why the newest attempt to deliver it failed. `earlier`: how often the target got it before, or may have got
    it as it was declared otherwise; a retry does not change it.
    """

    target: str
    partition_key: str
    change_id: str
    kind: str
    live_since: datetime
    error: str | None = None
    earlier: int = 0


_LIVE = """
  SELECT partition_key, max(change_id) AS change_id, arg_max(kind, change_id) AS kind, max(made_at) AS live_since
  FROM ledger.live_changes WHERE pipeline = {pipeline} GROUP BY partition_key
"""
# What reached a target, or may have: of an attempt that failed, nobody knows.
_REACHED = "(state = 'delivered' OR attempts > 0)"
_PENDING = """
  WITH target AS (SELECT unnest({names}) AS target, unnest({digests}) AS declaration),
  live AS ({live}),
  done AS (SELECT target, declaration, change_id, state, attempts, error, delivery_id FROM ledger.deliveries
           WHERE pipeline = {pipeline}),
  -- As declared when it was tried last: one that was declared before then was replaced since.
  shown AS (SELECT target, change_id, arg_max(done.declaration, delivery_id) AS declaration,
              arg_max(state, delivery_id) AS state,
              count(*) FILTER (state = 'delivered' OR done.declaration <> target.declaration) AS n
            FROM done JOIN target USING (target) WHERE {reached} GROUP BY target, change_id),
  pending AS (
    SELECT t.target, t.declaration, l.*, coalesce(d.n, 0) AS earlier FROM live l CROSS JOIN target t
    LEFT JOIN shown d ON d.target = t.target AND d.change_id = l.change_id
    WHERE d.state IS DISTINCT FROM 'delivered' OR d.declaration <> t.declaration)
  SELECT p.target, p.partition_key, p.change_id, p.kind, p.live_since, f.error, p.earlier
  FROM pending p LEFT JOIN (
    SELECT target, declaration, change_id, arg_max(error, delivery_id) AS error FROM done WHERE state = 'failed'
    GROUP BY ALL) f
    ON f.target = p.target AND f.declaration = p.declaration AND f.change_id = p.change_id
  ORDER BY p.target, p.partition_key
"""
_ANEW = """
  SELECT l.*, (SELECT count(*) FROM ledger.deliveries d WHERE d.pipeline = {pipeline} AND d.target = {target}
    AND d.change_id = l.change_id AND (d.state = 'delivered' OR (d.attempts > 0 AND d.declaration <> {declaration}))
  ) AS earlier FROM ({live}) l ORDER BY partition_key
"""


def insert_deliveries(con: DuckDBPyConnection, entries: Sequence[DeliveryEntry]) -> None:
    """Append them, inside a transaction."""
    insert_rows(con, "deliveries", entries)


def pending_deliveries(con: DuckDBPyConnection, pipeline: str, targets: Mapping[str, str]) -> list[Pending]:
    """What is pending for these targets, name → digest of its declaration, in the order of partitions."""
    if not targets:
        return []
    # Literals: to bind a parameter, DuckDB imports pandas, for which `status` would wait.
    names, digests = (f"[{', '.join(map(literal, each))}]" for each in (targets, targets.values()))
    live = _LIVE.format(pipeline=literal(pipeline))
    sql = _PENDING.format(pipeline=literal(pipeline), live=live, names=names, digests=digests, reached=_REACHED)
    return [Pending(**row) for row in dicts(con.execute(sql))]


def live_of(
    con: DuckDBPyConnection, pipeline: str, target: str, declaration: str, partition_keys: Sequence[str]
) -> list[Pending]:
    """The live changes of these partitions, as though the target had none of them."""
    live = _LIVE.format(pipeline=f"{literal(pipeline)} AND {among('partition_key', partition_keys)}")
    of = {"pipeline": literal(pipeline), "target": literal(target), "declaration": literal(declaration)}
    return [Pending(target, **row) for row in dicts(con.execute(_ANEW.format(live=live, **of)))]


def delivered_keys(con: DuckDBPyConnection, pipeline: str, target: str, declaration: str, last: int) -> list[str]:
    """The partitions whose live change a target has, by its present declaration: the newest delivered, oldest first."""
    of = f"pipeline = {literal(pipeline)}"
    select = (
        "SELECT partition_key FROM (SELECT partition_key, change_id, max(delivery_id) AS newest, "
        f"arg_max(state, delivery_id) AS state, arg_max(declaration, delivery_id) AS declaration "
        f"FROM ledger.deliveries WHERE {of} AND target = {literal(target)} AND {_REACHED} "
        f"GROUP BY partition_key, change_id) "
        f"SEMI JOIN (SELECT max(change_id) AS change_id FROM ledger.live_changes WHERE {of} GROUP BY partition_key) "
        f"USING (change_id) WHERE state = 'delivered' AND declaration = {literal(declaration)} "
        f"ORDER BY newest DESC LIMIT {last}"
    )
    return sorted(key for (key,) in con.execute(select).fetchall())


def shown_at(
    con: DuckDBPyConnection, pipeline: str, targets: Mapping[str, str], partition_keys: Sequence[str]
) -> dict[str, dict[str, DeliveryEntry]]:
    """Partition → target → the newest delivery of its live change, by the target's present declaration."""
    of_keys = f"pipeline = {literal(pipeline)} AND {among('partition_key', partition_keys)}"
    result = con.execute(
        f"SELECT * FROM ledger.deliveries WHERE {of_keys} AND {_REACHED} AND change_id IN (SELECT "
        f"max(change_id) FROM ledger.live_changes WHERE {of_keys} GROUP BY partition_key) ORDER BY delivery_id"
    )
    found: dict[str, dict[str, DeliveryEntry]] = {}
    for row in dicts(result):
        found.setdefault(row["partition_key"], {})[row["target"]] = DeliveryEntry(**row)
    return {
        key: {
            name: entry
            for name, entry in of.items()
            if entry.state == "delivered" and targets.get(name) == entry.declaration
        }
        for key, of in found.items()
    }
