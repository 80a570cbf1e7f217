"""The audit: who changed what is live or what an alias names, as a chain of hashes.

An entry's hash covers its own columns and the hash before it. Whoever edits, removes or inserts an entry must rewrite
every later one, and then the hashes that were noted elsewhere no longer occur. An entry is written in the transaction
of the change that it records.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster.declaration.canonical import canonical
from pip_dagster.ledger.record import dicts
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.sql.names import among, literal
from pip_dagster.warehouse.stamp import newest_entry

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Action = Literal[
    "audit started",
    "live",
    "rollback",
    "promotion",
    "canary",
    "accepted",
    "alarm",
    "report",
    "anchored",
    "rewritten",
    "reissued",
    "certified",
    "statement",
    "exercised",
    "hold",
]

# Columns of a scoring that an entry repeats, so that a difference can be named.
NAMED = ("model_name", "model_version", "model_digest", "feature_digest", "score_digest")
# Of these, those from which a value could be found by trying all, if the nonce of the scoring did not cover them too.
COMMITTED = ("feature_digest", "score_digest")
# The columns that its digest covers. A change of this list needs another prefix, since entries are never rewritten.
_COVERED = (
    *("scoring_id", "pipeline", "partition_key", "partition_start", "partition_end", "status", "reason", "role"),
    *("model_name", "model_version", "model_digest", "manifest_digest", "feature_revision", "feature_digest"),
    *("source_digests", "code_digest", "engine", "device", "device_reason", "threads", "table_name", "rows_in"),
    *("rows_scored", "rows_quarantined", "findings", "mean_score", "min_score", "max_score", "score_digest"),
    *("seconds", "run_id", "made_by", "made_at"),
)
_DIGEST, _COMMITMENT, _KEYED = "e1", "c1", "e2"
_NONCE_BYTES = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_INSTANTS = {"partition_start", "partition_end", "made_at"}

_SCORING = ", ".join(
    f"epoch_us(s.{name}) AS {name}" if name in _INSTANTS else f"s.{name}" for name in (*_COVERED, "nonce")
)

# Columns of a live change that its entry covers since they exist; the entries of older changes lack them.
_TYPED = ("kind", "pinned_version", "as_known", "experiment")

# A live change with the scoring that it points at; instants in microseconds since 1970, which are faster to read.
LIVE_CHANGES = f"""
  SELECT c.change_id, c.pipeline AS change_pipeline, c.partition_key AS change_partition,
         c.scoring_id AS change_scoring, c.why, c.run_id AS change_run, c.made_by AS change_by,
         epoch_us(c.made_at) AS change_at, {", ".join(f"c.{name}" for name in _TYPED)}, {_SCORING}
  FROM ledger.live_changes c LEFT JOIN ledger.scorings s ON s.scoring_id = c.scoring_id
"""

# An arm of a live change with its scoring.
_OF_ARM = ("arm", "scoring_id", "low", "high", "kind", "salt", "unit")
_ARMS = f"""
  SELECT a.change_id AS arm_change, a.partition_key AS arm_partition,
         {", ".join(f"a.{name} AS arm_{name}" for name in _OF_ARM)}, {_SCORING}
  FROM ledger.arms a LEFT JOIN ledger.scorings s ON s.scoring_id = a.scoring_id
"""


@dataclass(frozen=True)
class Event:
    """An entry before it has a place in the chain; `made_at` in microseconds since 1970.

    `pipeline` is None for an entry about a model only.
    """

    action: Action
    made_at: int
    actor: str
    pipeline: str | None
    subject: Mapping[str, Any]
    details: Mapping[str, Any]


@dataclass(frozen=True)
class _AuditRow:
    """One row of `ledger.audit`."""

    seq: int
    made_at: datetime
    actor: str
    action: Action
    pipeline: str | None
    subject: str
    details: str
    previous_hash: str
    hash: str


COLUMNS = tuple(field.name for field in fields(_AuditRow))


def append(con: DuckDBPyConnection, events: Sequence[Event], committed: DuckDBPyConnection | None = None) -> None:
    """Add entries in this order, all in one statement.

    Call it inside the transaction of the change that they record, in its turn, with the warehouse as the current
    catalog. A turn that was taken late comes with `committed`, which reads the last entry; then call it once.
    """
    if not events:
        return
    seq, previous = newest_entry(committed or con) or (0, "")
    rows: list[_AuditRow] = []
    for event in events:
        seq += 1
        row: dict[str, Any] = {
            "seq": seq,
            "made_at": event.made_at,
            "actor": event.actor,
            "action": event.action,
            "pipeline": event.pipeline,
            "subject": canonical(event.subject),
            "details": canonical(event.details),
            "previous_hash": previous,
        }
        previous = hash_of(row)
        rows.append(_AuditRow(**row | {"made_at": instant(event.made_at), "hash": previous}))
    insert_rows(con, "audit", rows)


def append_live(
    con: DuckDBPyConnection,
    change_ids: Sequence[str],
    committed: DuckDBPyConnection | None = None,
    *,
    since: datetime | None = None,
) -> None:
    """Add an entry for each of these live changes, read back as they and their scorings are stored.

    `since`: when the oldest of these changes and scorings was recorded; DuckDB skips what is older.
    """
    if not change_ids:
        return
    later = f"made_at >= {literal(since.isoformat())}::TIMESTAMPTZ" if since else "true"
    # Both tables are filtered by literals: joined first, every scoring of the warehouse would be read, and a subquery
    # costs more to plan than to run.
    chosen = f"SELECT scoring_id FROM ledger.live_changes WHERE {among('change_id', change_ids)} AND {later}"
    scorings = [row[0] for row in con.execute(chosen).fetchall() if row[0]]
    if not scorings:
        return
    where = f"WHERE {among('c.change_id', change_ids)} AND {among('s.scoring_id', scorings)}"
    where += f" AND c.{later} AND s.{later}" if since else ""
    changes = dicts(con.execute(f"{LIVE_CHANGES} {where} ORDER BY c.change_id"))
    arms = arms_by_change(con, change_ids)
    append(con, [live_event(change, arms.get(change["change_id"], ())) for change in changes], committed)


def arms_by_change(
    con: DuckDBPyConnection, change_ids: Sequence[str] | None = None
) -> dict[str, list[Mapping[str, Any]]]:
    """Change id → its rows of `ledger.arms` by bucket, each with its scoring as in `LIVE_CHANGES`."""
    where = ""
    values: dict[str, list[str]] = {}
    if change_ids is not None:  # both tables filtered, as above
        ids = {"ids": list(change_ids)}
        chosen = con.execute(
            "SELECT scoring_id FROM ledger.arms WHERE change_id IN (SELECT unnest($ids))", ids
        ).fetchall()
        if not chosen:
            return {}
        where = "WHERE a.change_id IN (SELECT unnest($ids)) AND s.scoring_id IN (SELECT unnest($scorings))"
        values = ids | {"scorings": [row[0] for row in chosen]}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in dicts(con.execute(f"{_ARMS} {where} ORDER BY a.change_id, a.low, a.arm", values)):
        found.setdefault(row["arm_change"], []).append(row)
    return found


def live_event(change: Mapping[str, Any], arms: Sequence[Mapping[str, Any]] = ()) -> Event:
    """The entry that records a row of `LIVE_CHANGES` with its arms."""
    split = {}
    if arms:
        split["arms"] = [
            {name: arm[f"arm_{name}"] for name in _OF_ARM}
            | {"model_version": arm["model_version"], "score_digest": _committed(arm, "score_digest")}
            | {"entry_digest": entry_digest(arm)}
            for arm in arms
        ]
    return Event(
        action="live",
        made_at=change["change_at"],
        actor=change["change_by"],
        pipeline=change["change_pipeline"],
        subject={
            "partition_key": change["change_partition"],
            "change_id": change["change_id"],
            "scoring_id": change["change_scoring"],
        },
        details={name: change[name] for name in (*NAMED, *_TYPED)}
        | {name: _committed(change, name) for name in COMMITTED}
        | {"why": change["why"], "run_id": change["change_run"], "entry_digest": entry_digest(change)}
        | split,
    )


def hash_of(row: Mapping[str, Any]) -> str:
    """The sha256 that an entry of these columns must have; `made_at` in microseconds."""
    content = {name: row[name] for name in COLUMNS if name != "hash"}
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def micros(at: datetime) -> int:
    """An instant in microseconds since 1970, exactly."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def instant(micros: int) -> datetime:
    """The instant back."""
    return _EPOCH + timedelta(microseconds=micros)


def scorings_in(con: DuckDBPyConnection, scoring_ids: Sequence[str]) -> list[Mapping[str, Any]]:
    """These scorings, with what `entry_digest` covers."""
    where = f"WHERE {among('s.scoring_id', scoring_ids)} ORDER BY s.scoring_id"
    return list(dicts(con.execute(f"SELECT {_SCORING} FROM ledger.scorings s {where}"))) if scoring_ids else []


def new_nonce() -> str:
    """16 random bytes as hex."""
    return secrets.token_hex(_NONCE_BYTES)


def entry_digest(scoring: Mapping[str, Any]) -> str:
    """A digest of a scoring's row and nonce; without a nonce, from before there were any, of the row alone."""
    covered = canonical({name: scoring[name] for name in _COVERED})
    if nonce := scoring["nonce"]:
        return f"{_KEYED}:{hashlib.sha256(f'{nonce}|{covered}'.encode()).hexdigest()}"
    return f"{_DIGEST}:{hashlib.sha256(covered.encode()).hexdigest()}"


def _committed(scoring: Mapping[str, Any], name: str) -> Any:
    """A column as an entry repeats it: of which nothing can be learned without the nonce."""
    value, nonce = scoring[name], scoring["nonce"]
    if value is None or not nonce:
        return value
    return f"{_COMMITMENT}:{hashlib.sha256(f'{nonce}|{name}|{value}'.encode()).hexdigest()}"
