"""Whether a canary is stopped: an append-only record of stops and resumptions, each with its entry in the audit.

A stop applies to an alias and the version that it named. It holds until a person resumes the canary, or until the alias
names another version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster import clock
from pip_dagster.ledger import audit
from pip_dagster.ledger.record import dicts, new_id
from pip_dagster.ledger.rows import insert_rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# The newest check by labels, of a partition that this very version scored.
_SEEN = """
  SELECT c.observed FROM ledger.checks c
  WHERE c.pipeline = $pipeline AND c.section = 'split' AND c.expectation_id = 'metric ' || $alias AND EXISTS (
    FROM ledger.scorings s WHERE s.pipeline = $pipeline AND s.partition_key = c.partition_key
      AND s.role = 'arm' AND s.model_name = $name AND s.model_version = $version)
  ORDER BY c.made_at DESC LIMIT 1
"""
_DETAILS = ("action", "model_name", "model_version", "why", "figures", "run_id")


@dataclass(frozen=True, kw_only=True)
class CanaryEvent:
    """One row of `ledger.canaries`. `partition_key` is None where a person stopped or resumed it; `figures` is JSON."""

    event_id: str = field(default_factory=new_id)
    pipeline: str
    partition_key: str | None = None
    alias: str
    model_name: str
    model_version: int
    action: Literal["stopped", "resumed"]
    why: str
    figures: str = "{}"
    run_id: str
    made_by: str
    made_at: datetime = field(default_factory=clock.now)

    @property
    def model(self) -> tuple[str, int]:
        """Name and version."""
        return self.model_name, self.model_version

    @property
    def text(self) -> str:
        """The event in a sentence."""
        where = f" by partition {self.partition_key}" if self.partition_key else f" by {self.made_by}"
        return f"{self.alias} (v{self.model_version}) was {self.action}{where}: {self.why}"


def record_event(con: DuckDBPyConnection, event: CanaryEvent) -> None:
    """Append a stop or a resumption, with its entry in the audit. Call it inside a transaction on the warehouse."""
    insert_rows(con, "canaries", [event])
    audit.append(con, [_audit_event(event)])


def _audit_event(event: CanaryEvent) -> audit.Event:
    return audit.Event(
        action="canary",
        made_at=audit.micros(event.made_at),
        actor=event.made_by,
        pipeline=event.pipeline,
        subject={"event_id": event.event_id, "canary": event.alias, "partition_key": event.partition_key},
        details={name: getattr(event, name) for name in _DETAILS},
    )


def events(con: DuckDBPyConnection, pipeline: str) -> list[CanaryEvent]:
    """Every stop and resumption, oldest first."""
    result = con.execute("SELECT * FROM ledger.canaries WHERE pipeline = $p ORDER BY event_id", {"p": pipeline})
    return [CanaryEvent(**row) for row in dicts(result)]


def stopped(con: DuckDBPyConnection, pipeline: str, alias: str, model: tuple[str, int]) -> CanaryEvent | None:
    """The stop that holds for the model and version that an alias names, or None."""
    of = [event for event in events(con, pipeline) if event.alias == alias and event.model == model]
    return of[-1] if of and of[-1].action == "stopped" else None


def seen_by_labels(con: DuckDBPyConnection, pipeline: str, alias: str, model: tuple[str, int]) -> str | None:
    """What late labels showed of an arm when a run judged it last; None where none did."""
    values = {"pipeline": pipeline, "alias": alias, "name": model[0], "version": model[1]}
    row = con.execute(_SEEN, values).fetchone()
    return str(json.loads(row[0])) if row and row[0] else None


def events_by_id(con: DuckDBPyConnection) -> dict[str, Mapping[str, Any]]:
    """Event id → the columns that its entry in the audit must have, flat."""
    found = {}
    for row in dicts(con.execute("SELECT * FROM ledger.canaries")):
        entry = _audit_event(CanaryEvent(**row))
        who = {"made_at": entry.made_at, "actor": entry.actor, "pipeline": entry.pipeline}
        flat = who | {**entry.subject, **entry.details}
        found[row["event_id"]] = json.loads(json.dumps(flat))
    return found
