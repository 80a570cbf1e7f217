"""Silences: nobody is notified of some alarms until a date, with a reason; each has its entry in the audit.

A silence ends by itself. Alarms go on changing their state meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.errors import DeclarationError
from pip_dagster.ledger import audit
from pip_dagster.ledger.record import dicts, new_id
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.sql.names import literal, quote_all

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.ledger.alarms import AlarmEntry


@dataclass(frozen=True, kw_only=True)
class Silence:
    """One row of `ledger.silences`: it is about one alarm, or about those of an event, a rule and a subject.

    Attributes:
        event, rule, subject: None for any.
        until: When it ends by itself.
        ends: The silence that this row ends before its date; then `until` is None.
    """

    silence_id: str = field(default_factory=new_id)
    pipeline: str
    alarm_id: str | None = None
    event: str | None = None
    rule: str | None = None
    subject: str | None = None
    until: datetime | None = None
    ends: str | None = None
    reason: str
    made_by: str
    made_at: datetime = field(default_factory=clock.now)

    def covers(self, alarm: AlarmEntry) -> bool:
        """Whether it is about this alarm, whatever its time."""
        if self.pipeline != alarm.pipeline or self.ends:
            return False
        if self.alarm_id:
            return self.alarm_id == alarm.alarm_id
        wanted = ((self.event, alarm.event), (self.rule, alarm.rule), (self.subject, alarm.subject))
        return all(mine is None or mine == its for mine, its in wanted)

    @property
    def about(self) -> str:
        """What it is about, in words."""
        if self.alarm_id:
            return f"alarm {self.alarm_id}"
        named = (("event", self.event), ("rule", self.rule), ("subject", self.subject))
        return ", ".join(f"{what} {name}" for what, name in named if name is not None)


@dataclass(frozen=True)
class Silenced:
    """A silence with the instant at which it ended, or will end. `ended`: a person ended it.

    It holds as soon as it is recorded. The time of a record may be ahead of the clock that asks.
    """

    silence: Silence
    end: datetime
    ended: bool = False

    def is_on(self, now: datetime) -> bool:
        """Whether it holds now."""
        return not self.ended and now < self.end


def silences_of(con: DuckDBPyConnection, pipeline: str | None = None) -> list[Silenced]:
    """The silences of a pipeline, or of all pipelines, oldest first."""
    columns = quote_all(each.name for each in fields(Silence))
    of = "true" if pipeline is None else f"pipeline = {literal(pipeline)}"
    result = con.execute(f"SELECT {columns} FROM ledger.silences WHERE {of} ORDER BY silence_id")
    rows = [Silence(**row) for row in dicts(result)]
    ended = {row.ends: row.made_at for row in rows if row.ends}
    return [
        Silenced(row, min(row.until, ended.get(row.silence_id, row.until)), row.silence_id in ended)
        for row in rows
        if row.until
    ]


def silence_of(silences: Iterable[Silenced], alarm: AlarmEntry, now: datetime) -> Silenced | None:
    """The silence that holds for an alarm the longest; None where nobody silenced it."""
    found = [each for each in silences if each.is_on(now) and each.silence.covers(alarm)]
    return max(found, key=lambda each: each.end, default=None)


def ended_silence(silences: Iterable[Silenced], alarm: AlarmEntry, now: datetime) -> Silenced | None:
    """The silence of an alarm that ended last; None where none has."""
    found = (each for each in silences if not each.is_on(now) and each.silence.covers(alarm))
    return max(found, key=lambda each: each.end, default=None)


def record_silence(con: DuckDBPyConnection, silence: Silence) -> None:
    """Append a silence, or its end, with its entry in the audit; inside a transaction."""
    insert_rows(con, "silences", [silence])
    audit.append(con, [_audit_event(silence)])


def silence_named(silences: Sequence[Silenced], name: str, now: datetime) -> Silence:
    """The silence that holds whose id, or alarm's id, is or begins with this.

    Raises:
        DeclarationError: there is none, or there are several.
    """
    on = [each.silence for each in silences if each.is_on(now)]
    ids = {each.silence_id: (each.silence_id, each.alarm_id or "") for each in on}
    found = [each for each in on if name and any(of.startswith(name) for of in ids[each.silence_id])]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(each.silence_id for each in (found or on)[:5]) or "none"
    what = "is the beginning of several silences" if found else "is no silence that holds now"
    raise DeclarationError(f"{name!r} {what}: {listed}. `pip-dagster alarms` lists them with their ids.")


def _audit_event(silence: Silence) -> audit.Event:
    about = {name: getattr(silence, name) for name in ("alarm_id", "event", "rule", "subject", "ends")}
    about["until"] = silence.until and audit.micros(silence.until)
    details = {"action": "unsilenced" if silence.ends else "silenced", "why": silence.reason, **about}
    made_at, subject = audit.micros(silence.made_at), {"silence_id": silence.silence_id}
    return audit.Event("alarm", made_at, silence.made_by, silence.pipeline, subject, details)


def silences_by_id(con: DuckDBPyConnection) -> dict[str, audit.Event]:
    """Row id → the audit's entry that it must have."""
    columns = quote_all(each.name for each in fields(Silence))
    rows = (Silence(**row) for row in dicts(con.execute(f"SELECT {columns} FROM ledger.silences")))
    return {row.silence_id: _audit_event(row) for row in rows}
