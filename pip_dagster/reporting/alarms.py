"""The alarms of a report: those that the ledger keeps, or where it keeps none, what its figures show."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pip_dagster.ledger.audit import instant
from pip_dagster.reporting.content import AlarmLine, Day, ExceptionLine
from pip_dagster.reporting.days import shortened
from pip_dagster.reporting.verdict import since_of
from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from pip_dagster.declaration.monitoring import Monitoring
    from pip_dagster.monitoring.finding import Finding
    from pip_dagster.reporting.distributions import Profiled
    from pip_dagster.reporting.source import OpenLedger

_MOST = 200
_NEWEST = """
  SELECT * FROM (
    SELECT * FROM ledger.alarms WHERE pipeline = {pipeline}
    QUALIFY row_number() OVER (PARTITION BY alarm_id ORDER BY sequence DESC) = 1
  ) ORDER BY (state = 'resolved'), partition_key DESC, (severity <> 'alarm'), event, rule, subject LIMIT {most}
"""
# Those that hold at an instant; a row with `ends` ends another before its date.
_SILENCES = """
  SELECT * REPLACE (epoch_us(until) AS until, epoch_us(made_at) AS made_at) FROM ledger.silences s
  WHERE pipeline = {pipeline} AND until > {at}::TIMESTAMPTZ
    AND NOT EXISTS (FROM ledger.silences e WHERE e.ends = s.silence_id) ORDER BY silence_id
"""


def stored_alarms(source: OpenLedger, pipeline: str, silences: Sequence[dict[str, Any]]) -> list[AlarmLine] | None:
    """The newest state of each alarm; None where the ledger keeps none of this pipeline."""
    if not source.has("ledger", "alarms"):
        return None
    if source.has("ledger", "alarm_marks"):
        of = f"SELECT 1 FROM ledger.alarm_marks WHERE pipeline = {literal(pipeline)} LIMIT 1"
        if not source.rows(of):
            return None
    rows = source.rows(_NEWEST.format(pipeline=literal(pipeline), most=_MOST))
    return [_line(row, silences) for row in rows]


def read_silences(source: OpenLedger, pipeline: str, at: datetime | None) -> list[dict[str, Any]]:
    """The silences of a pipeline's alarms that hold at an instant."""
    if at is None or not source.has("ledger", "silences"):
        return []
    return source.rows(_SILENCES.format(pipeline=literal(pipeline), at=literal(at.isoformat())))


def silence_lines(silences: Sequence[dict[str, Any]]) -> tuple[ExceptionLine, ...]:
    """Silences as exceptions that somebody made."""
    return tuple(
        ExceptionLine(
            at=f"{instant(row['made_at']):%Y-%m-%d %H:%M}",
            by=row["made_by"],
            what="silence of " + ", ".join(f"{name} {row[name]}" for name in _ABOUT if row[name] is not None),
            why=row["reason"],
            until=f"{instant(row['until']):%Y-%m-%d %H:%M}",
        )
        for row in silences
    )


_ABOUT = ("alarm_id", "event", "rule", "subject")


def _silenced(alarm: dict[str, Any], silences: Sequence[dict[str, Any]]) -> str:
    """Until when and why nobody is notified of an alarm; empty if they are."""
    for row in silences:
        if all(row[name] is None or row[name] == alarm[name] for name in _ABOUT):
            return f"silenced until {instant(row['until']):%Y-%m-%d} by {row['made_by']}: {row['reason']}"
    return ""


def _line(row: dict[str, Any], silences: Sequence[dict[str, Any]]) -> AlarmLine:
    return AlarmLine(
        state="alarm" if row["severity"] == "alarm" else "warning",
        status=row["state"],
        event=row["event"],
        rule=row["rule"],
        subject=row["subject"],
        since=row["since"],
        partition=row["partition_key"],
        value=row["value"],
        threshold=row["threshold"],
        chance=row["chance"],
        rows=row["rows"],
        cause=shortened(row["cause"] or ""),
        command=row["command"] or "",
        silenced=_silenced(row, silences),
    )


def blocked_alarms(pipeline: str, days: Sequence[Day]) -> list[AlarmLine]:
    """Partitions that are not live since their newest attempt was blocked or failed."""
    return [
        AlarmLine(
            state="alarm",
            status="alarm",
            event=day.status,
            rule="attempt",
            subject=day.partition,
            since=day.partition,
            partition=day.partition,
            value=None,
            threshold=None,
            chance=None,
            rows=day.rows,
            cause=day.reason or "",
            command=f"pip-dagster lineage {pipeline} {day.partition}",
        )
        for day in reversed(days)
        if day.status in ("blocked", "failed")
    ]


def chain_alarm(fault: str, partition: str) -> AlarmLine:
    """The audit's chain does not agree with the ledger or the registry."""
    return AlarmLine(
        state="alarm",
        status="alarm",
        event="audit",
        rule="chain",
        subject="",
        since=None,
        partition=partition,
        value=None,
        threshold=None,
        chance=None,
        rows=None,
        cause=shortened(fault),
        command="pip-dagster audit verify",
    )


def alarm_of(found: Finding) -> AlarmLine | None:
    """A finding as an alarm, for a ledger without alarms; None where it is neither a warning nor an alarm."""
    if found.state not in ("alarm", "warning"):
        return None
    return AlarmLine(
        state=found.state,
        status=found.state,
        event=found.event,
        rule=found.rule,
        subject=found.subject,
        since=None,
        partition=found.partition_key,
        value=found.value,
        threshold=found.threshold,
        chance=found.chance,
        rows=found.rows,
        cause=shortened(found.cause),
        command=found.command,
    )


def drift_alarms(pipeline: str, days: Sequence[Day], found: Profiled, rules: Monitoring) -> list[AlarmLine]:
    """The columns in alarm at the end of the period, for a ledger without alarms."""
    lines = []
    judged = [day for day in days if day.drift]
    for each in found.newest.alarms:
        at = since_of([each.title in day.drifted for day in judged])
        window = each.window(7 if each.rule == "week" else 1, "training")
        is_share = each.rule in ("missing", "unseen")
        lines.append(
            AlarmLine(
                state="alarm",
                status="alarm",
                event="drift",
                rule=each.rule or "drift",
                subject=each.title,
                since=judged[at].partition if at < len(judged) else None,
                partition=found.newest.partition_key,
                value=each.share_now if is_share else window.excess if window else None,
                threshold=each.threshold,
                chance=rules.false_alarms,
                rows=window.rows if window else None,
                cause=each.changed,
                command=f"pip-dagster monitor {pipeline} --partition {found.newest.partition_key}",
            )
        )
    return lines
