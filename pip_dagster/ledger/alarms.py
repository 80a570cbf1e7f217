"""The history of alarms: a row whenever one changes, the newest of which is its state.

An alarm is one incident of one rule for one subject. When it has been resolved and the rule fires again, another alarm
begins. The warehouse is the current catalog of every function here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pip_dagster import clock
from pip_dagster.errors import DeclarationError
from pip_dagster.ledger import audit
from pip_dagster.ledger.record import dicts, new_id
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.sql.names import literal, quote_all

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

AlarmState = Literal["warning", "alarm", "acknowledged", "resolved"]
Severity = Literal["warning", "alarm"]


@dataclass(frozen=True, kw_only=True)
class AlarmEntry:
    """One row of `ledger.alarms`.

    Attributes:
        sequence: The place of this row in the alarm's history, from 1.
        scope: What the subject of drift is: `score`, `decision` or `feature`; empty for others.
        severity: The worst that was found since the alarm began.
        since: The partition with which it began.
        partition_key: The newest partition that was judged. `scoring_id`, `value` and the others are of the newest
            partition that was bad.
        good: The partitions that were good since the newest bad one.
        quiet: The pipeline was catching up when it began, and nobody is notified.
        reason: Why a person acknowledged it, in the row that does so; empty in others.
    """

    event_id: str = field(default_factory=new_id)
    pipeline: str
    alarm_id: str
    sequence: int
    event: str
    rule: str
    subject: str
    scope: str
    weight: float | None
    state: AlarmState
    severity: Severity
    since: str
    partition_key: str
    scoring_id: str | None
    partitions: int
    value: float | None
    threshold: float | None
    chance: float | None
    rows: int
    cause: str
    command: str
    good: list[str]
    quiet: bool
    made_at: datetime = field(default_factory=clock.now)
    made_by: str
    reason: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it is not resolved."""
        return self.state != "resolved"


def insert_alarms(con: DuckDBPyConnection, entries: Sequence[AlarmEntry]) -> None:
    """Append them, inside a transaction."""
    insert_rows(con, "alarms", entries)


def alarm_states(con: DuckDBPyConnection, pipeline: str | None = None) -> list[AlarmEntry]:
    """The newest row of each alarm of a pipeline, or of all pipelines, oldest alarm first."""
    return _alarms(con, "alarm_states", pipeline)


def alarm_history(con: DuckDBPyConnection, pipeline: str | None = None) -> list[AlarmEntry]:
    """Every row, oldest first."""
    return _alarms(con, "alarms", pipeline)


def _alarms(con: DuckDBPyConnection, table: str, pipeline: str | None) -> list[AlarmEntry]:
    columns = quote_all(each.name for each in fields(AlarmEntry))
    of = "true" if pipeline is None else f"pipeline = {literal(pipeline)}"
    result = con.execute(f"SELECT {columns} FROM ledger.{table} WHERE {of} ORDER BY event_id, sequence")
    return [AlarmEntry(**row) for row in dicts(result)]


def alarm_named(known: Sequence[AlarmEntry], name: str) -> AlarmEntry:
    """The alarm whose id is, or begins with, this.

    Raises:
        DeclarationError: there is none, or there are several.
    """
    found = [each for each in known if name and each.alarm_id.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(each.alarm_id for each in found[:5])
        raise DeclarationError(f"{name!r} is the beginning of several alarms: {listed}. Type more of its id.")
    raise DeclarationError(f"There is no alarm {name!r}. `pip-dagster alarms --all` lists all with their ids.")


def outlived(con: DuckDBPyConnection, alarms: Sequence[AlarmEntry]) -> dict[str, tuple[int, int]]:
    """Alarm id → the version that it is of, and the one that scored since, where that is another.

    Until the newer version has enough partitions of its own, nothing says whether such an alarm still holds.
    """
    ids = [each.scoring_id for each in alarms if each.scoring_id]
    if not ids:
        return {}
    sql = """
      WITH live AS (
        SELECT pipeline, arg_max(model_version, partition_start) AS version
        FROM ledger.partitions WHERE is_live GROUP BY pipeline)
      SELECT s.scoring_id, s.model_version, live.version FROM ledger.scorings s JOIN live USING (pipeline)
      WHERE s.scoring_id IN (SELECT unnest($ids)) AND s.model_version <> live.version
    """
    found = {row[0]: (row[1], row[2]) for row in con.execute(sql, {"ids": ids}).fetchall()}
    return {each.alarm_id: found[each.scoring_id] for each in alarms if each.is_open and each.scoring_id in found}


def acknowledge(con: DuckDBPyConnection, alarm: AlarmEntry, *, by: str, why: str) -> AlarmEntry:
    """Record, with an entry in the audit, that somebody deals with an alarm; inside a transaction.

    Raises:
        DeclarationError: it is acknowledged already, or resolved.
    """
    if alarm.state in ("acknowledged", "resolved"):
        raise DeclarationError(f"Pipeline {alarm.pipeline}: alarm {alarm.alarm_id} is {alarm.state} already.")
    entry = replace(
        alarm,
        event_id=new_id(),
        sequence=alarm.sequence + 1,
        state="acknowledged",
        made_at=clock.now(),
        made_by=by,
        reason=why,
    )
    insert_alarms(con, [entry])
    audit.append(con, [_audit_event(entry)])
    return entry


def _audit_event(entry: AlarmEntry) -> audit.Event:
    subject = {"event_id": entry.event_id, "alarm_id": entry.alarm_id}
    details = {"action": "acknowledged", "event": entry.event, "rule": entry.rule, "subject": entry.subject}
    made_at = audit.micros(entry.made_at)
    return audit.Event("alarm", made_at, entry.made_by, entry.pipeline, subject, details | {"why": entry.reason})


def acknowledgments_by_id(con: DuckDBPyConnection) -> dict[str, audit.Event]:
    """Row id → the audit's entry that it must have, for each acknowledgment."""
    return {entry.event_id: _audit_event(entry) for entry in alarm_history(con) if entry.reason}


@dataclass(frozen=True)
class Mark:
    """One row of `ledger.alarm_marks`."""

    pipeline: str
    event: str
    rule: str
    partition_key: str
    made_at: datetime


def marks_of(con: DuckDBPyConnection, pipeline: str, started: Callable[[str], datetime]) -> dict[tuple[str, str], str]:
    """Event and rule → the newest partition that was judged by it: marks only go forward, whatever a clock says.

    `started`: when the partition of a key begins. Within a day, texts may be in another order.
    """
    sql = (
        "SELECT event, rule, list(DISTINCT partition_key) FROM (SELECT *, max(partition_key) OVER (PARTITION BY event, "
        f"rule) AS newest FROM ledger.alarm_marks WHERE pipeline = {literal(pipeline)}) "
        "WHERE left(partition_key, 10) = left(newest, 10) GROUP BY event, rule"
    )
    return {(event, rule): max(keys, key=started) for event, rule, keys in con.execute(sql).fetchall()}


def has_marks(con: DuckDBPyConnection, pipeline: str) -> bool:
    """Whether alarms of a pipeline were ever judged."""
    sql = f"SELECT EXISTS (FROM ledger.alarm_marks WHERE pipeline = {literal(pipeline)})"
    return con.execute(sql).fetchone() == (True,)


def insert_marks(con: DuckDBPyConnection, pipeline: str, marks: Mapping[tuple[str, str], str]) -> None:
    """Append them, inside a transaction."""
    insert_rows(con, "alarm_marks", [Mark(pipeline, *rule, key, clock.now()) for rule, key in marks.items()])
