"""The alarms of a report: those that the ledger keeps, or where it keeps none, what its figures show."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster.ledger.alarms import AlarmEntry, alarm_states, has_marks
from pip_dagster.ledger.silences import Silenced, silence_of, silences_of
from pip_dagster.reporting.content import AlarmLine, Day, ExceptionLine
from pip_dagster.reporting.days import shortened
from pip_dagster.reporting.verdict import since_of

if TYPE_CHECKING:
    from pip_dagster.declaration.monitoring import Monitoring
    from pip_dagster.monitoring.finding import Finding
    from pip_dagster.reporting.distributions import Profiled
    from pip_dagster.reporting.source import OpenLedger

_MOST = 200


def stored_alarms(
    source: OpenLedger, pipeline: str, silences: Sequence[Silenced], at: datetime | None
) -> list[AlarmLine] | None:
    """The newest state of each alarm; None where the ledger keeps none of this pipeline."""
    if not source.has("ledger", "alarm_states") or not has_marks(source.con, pipeline):
        return None
    alarms = alarm_states(source.con, pipeline)
    alarms.sort(key=lambda each: (each.severity != "alarm", each.event, each.rule, each.subject))
    alarms.sort(key=lambda each: each.partition_key, reverse=True)
    alarms.sort(key=lambda each: not each.is_open)
    return [_line(each, silence_of(silences, each, at) if at else None) for each in alarms[:_MOST]]


def read_silences(source: OpenLedger, pipeline: str, at: datetime | None) -> list[Silenced]:
    """The silences of a pipeline's alarms that hold at an instant."""
    if at is None or not source.has("ledger", "silences"):
        return []
    return [each for each in silences_of(source.con, pipeline) if each.is_on(at)]


def silence_lines(silences: Sequence[Silenced]) -> tuple[ExceptionLine, ...]:
    """Silences as exceptions that somebody made."""
    return tuple(
        ExceptionLine(
            at=f"{each.silence.made_at:%Y-%m-%d %H:%M}",
            by=each.silence.made_by,
            what=f"silence of {each.silence.about}",
            why=each.silence.reason,
            until=f"{each.end:%Y-%m-%d %H:%M}",
        )
        for each in silences
    )


def _line(of: AlarmEntry, silenced: Silenced | None) -> AlarmLine:
    why = ""
    if silenced:
        why = f"silenced until {silenced.end:%Y-%m-%d} by {silenced.silence.made_by}: {silenced.silence.reason}"
    return AlarmLine(
        state=of.severity,
        status=of.state,
        event=of.event,
        rule=of.rule,
        subject=of.subject,
        since=of.since,
        partition=of.partition_key,
        value=of.value,
        threshold=of.threshold,
        chance=of.chance,
        rows=of.rows,
        cause=shortened(of.cause),
        command=of.command,
        silenced=why,
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
                value=each.share_now - each.share_before if is_share else window.excess if window else None,
                threshold=each.threshold,
                chance=rules.false_alarms,
                rows=window.rows if window else None,
                cause=each.changed,
                command=f"pip-dagster monitor {pipeline} {found.newest.partition_key}",
            )
        )
    return lines
