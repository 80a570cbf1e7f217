"""Alarms in words, for messages and the command line, and as records for machines."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Protocol, TypeVar

from pip_dagster.alerts.alert import Alert
from pip_dagster.alerts.paging import Message
from pip_dagster.ledger.alarms import AlarmEntry
from pip_dagster.ledger.silences import Silenced
from pip_dagster.plural import plural

_NAMED = 3


def name_of(alarm: AlarmEntry) -> str:
    """What it is about: the subject, with what it is where that is known."""
    return f"{alarm.scope} {alarm.subject}" if alarm.scope else alarm.subject


def figure(value: float | None) -> str:
    """A figure, short; empty where there is none."""
    return "" if value is None else f"{value:.3g}"


def chance(alarm: AlarmEntry) -> str:
    """How often its rule fires although nothing has changed."""
    if alarm.chance is None:
        return "not known"
    if alarm.chance == 0:
        return "never"
    return f"1 partition in {max(1, round(1 / alarm.chance)):,}"


def line(alarm: AlarmEntry) -> str:
    """An alarm in one line, with everything that a reader needs at night."""
    parts = [f"{name_of(alarm)}: {alarm.state} since {alarm.since}"]
    if alarm.value is not None:
        against = "" if alarm.threshold is None else f", threshold {figure(alarm.threshold)}"
        parts.append(f"{alarm.rule} {figure(alarm.value)}{against}")
    if alarm.cause:
        parts.append(alarm.cause)
    if alarm.is_open:
        parts += [plural(alarm.rows, "row"), f"fires by chance: {chance(alarm)}", f"next: {alarm.command}"]
    else:
        parts.append(f"good since {alarm.good[0]}" if alarm.good else "good")
    return "; ".join(parts)


def lines(alarms: Sequence[AlarmEntry]) -> list[str]:
    """The same of several: a line for each in alarm, and one for all warnings of a rule."""
    groups = gathered(alarms, lambda each: each.state if each.severity == "warning" else None)
    groups.sort(key=lambda group: group[0].severity == "warning")
    return [line(group[0]) if len(group) == 1 else of_group(group) for group in groups]


class Ruled(Protocol):
    """An alarm, stored or in a report."""

    @property
    def event(self) -> str:
        """What kind of finding."""
        ...

    @property
    def rule(self) -> str:
        """The rule that fired."""
        ...


R = TypeVar("R", bound=Ruled)


def gathered(alarms: Sequence[R], alike: Callable[[R], Hashable | None], least: int = 2) -> list[list[R]]:
    """Alarms of one event and rule together where they are `alike`, and at least so many; the others alone, in order.

    A block for each warning would hide what is in alarm. `alike` is None for an alarm that stays alone.
    """
    groups: dict[Hashable, list[R]] = {}
    for at, each in enumerate(alarms):
        kind = alike(each)
        groups.setdefault(at if kind is None else (each.event, each.rule, kind), []).append(each)
    found: list[list[R]] = []
    for group in groups.values():
        found += [group] if len(group) >= least else [[each] for each in group]
    return found


def of_group(group: Sequence[AlarmEntry]) -> str:
    """Warnings of one event and rule in one line."""
    first = group[0]
    names = ", ".join(each.subject for each in group)
    since = min(each.since for each in group)
    return f"{first.event}, {first.rule}: {first.state} of {len(group)} subjects since {since}: {names}"


def after_silence(ended: Silenced) -> str:
    """That a silence has ended, for those who are notified again."""
    of = ended.silence
    return f"its silence by {of.made_by} ({of.reason}) ended {ended.end:%Y-%m-%d %H:%M} UTC"


def record(alarm: AlarmEntry) -> dict[str, Any]:
    """All fields, for JSON."""
    found = {each.name: getattr(alarm, each.name) for each in fields(AlarmEntry)}
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    """JSON has no instants, and no numbers that are infinite or none."""
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def alert_of(pipeline: str, message: Message) -> Alert:
    """A message as it is sent: several subjects of one event are one message, the most important first."""
    notes = {alarm_id: f"; {after_silence(ended)}" for alarm_id, ended in message.after.items()}
    texts = [line(alarm) + notes.get(alarm.alarm_id, "") for alarm in message.alarms]
    if message.event is None:
        new = sum(alarm.is_open for alarm in message.alarms)
        title = f"{pipeline}: {new} new, {len(message.alarms) - new} resolved, {len(message.standing)} as before"
        texts = lines(message.alarms) + [f"still: {text}" for text in lines(message.standing)]
        alarms = (*message.alarms, *message.standing)
        return Alert("digest", pipeline, title, _partitions(alarms), alarms=[*map(record, alarms)], lines=texts)
    verb = "in alarm" if message.kind == "page" else "resolved"
    title = f"{pipeline}: {message.event} {verb}: {_names(message.alarms)}"
    kind: Any = message.event
    records = [*map(record, message.alarms)]
    return Alert(kind, pipeline, title, _partitions(message.alarms), alarms=records, lines=texts)


def _names(alarms: Sequence[AlarmEntry]) -> str:
    listed = [name_of(alarm) for alarm in alarms]
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more


def _partitions(alarms: Sequence[AlarmEntry]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for alarm in alarms:
        found.setdefault(alarm.partition_key, []).append(name_of(alarm))
    return {key: ", ".join(names) for key, names in sorted(found.items())}
