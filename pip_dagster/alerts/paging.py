"""What is sent of alarms, and in which order: a function of the ledger and the time, which sends nothing itself.

An alarm is sent at once, all of one event in one message; a warning waits for the digest of the day. Each is sent once,
and again only when a silence has ended and it still holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from pip_dagster import clock
from pip_dagster.ledger.alarm_deliveries import Delivery, Sent
from pip_dagster.ledger.alarms import AlarmEntry
from pip_dagster.ledger.silences import Silenced, ended_silence, silence_of

# By event, or by what a column of drift is. What is in no place waits for the digest.
_ORDER = ("freshness", "delivery", "score", "performance", "estimate", "feature")


@dataclass(frozen=True)
class Incident:
    """An alarm's newest row, and the one with which its present state began."""

    now: AlarmEntry
    changed: AlarmEntry


@dataclass(frozen=True)
class Message:
    """Alarms that are sent together, the most important first. `event` is None for the digest.

    `standing`: what the digest lists although it is not new. `after`: by alarm id, the silence that has ended.
    """

    kind: Sent
    event: str | None
    alarms: tuple[AlarmEntry, ...]
    standing: tuple[AlarmEntry, ...] = ()
    after: Mapping[str, Silenced] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """What the ledger holds of a pipeline's alarms. `delivered`: of the one destination that is asked about."""

    incidents: Sequence[Incident]
    silences: Sequence[Silenced]
    delivered: Sequence[Delivery]


def incidents(history: Sequence[AlarmEntry]) -> list[Incident]:
    """The alarms of a history, which is in order."""
    found: dict[str, list[AlarmEntry]] = {}
    for row in history:
        found.setdefault(row.alarm_id, []).append(row)
    listed = []
    for unsorted in found.values():
        rows = sorted(unsorted, key=lambda each: each.sequence)
        present = (rows[-1].state, rows[-1].severity)
        changed = rows[-1]
        for row in reversed(rows):
            if (row.state, row.severity) != present:
                break
            changed = row
        listed.append(Incident(rows[-1], changed))
    return listed


def place(alarm: AlarmEntry) -> int | None:
    """Its place in the order of sending; None where it waits for the digest."""
    if alarm.severity == "warning":
        return None
    name = alarm.event
    if alarm.event == "drift":
        name = "score" if alarm.scope in ("score", "decision") else "feature"
        if name == "feature" and alarm.weight is not None and alarm.weight <= 0:
            return None  # the model does not use it
    return _ORDER.index(name) if name in _ORDER else None


def ordered(alarms: Sequence[AlarmEntry]) -> list[AlarmEntry]:
    """The most important first: by place, then by weight."""

    def key(alarm: AlarmEntry) -> tuple[int, float, str]:
        at = place(alarm)
        return (len(_ORDER) if at is None else at, -(alarm.weight or 0.0), alarm.subject)

    return sorted(alarms, key=key)


def due(of: Standing, events: Collection[str], now: datetime, digest_at: datetime | None) -> list[Message]:
    """The messages to send now, in order. `digest_at`: the newest time of a digest; None where none is sent."""
    sent = _Sent(of.delivered, now)
    heard = [
        each
        for each in of.incidents
        if each.now.event in events and not each.now.quiet and silence_of(of.silences, each.now, now) is None
    ]
    ended = {each.now.alarm_id: ended_silence(of.silences, each.now, now) for each in heard}
    after = {alarm_id: silence for alarm_id, silence in ended.items() if silence}
    pages = [each.now for each in heard if _is_paged(each.now, sent, ended[each.now.alarm_id], now)]
    solved = [each.now for each in heard if _is_solved(each.now, sent)]
    found = [replace(each, after=after) for each in _by_event("page", pages)]
    found += _by_event("resolved", solved)
    if digest_at is not None and (fresh := [each.now for each in heard if _is_in_digest(each, sent, digest_at, now)]):
        ids = {each.alarm_id for each in fresh}
        rest = [each.now for each in heard if each.now.is_open and each.now.alarm_id not in ids]
        found.append(Message("digest", None, (*ordered(fresh),), (*ordered(rest),)))
    return found


def digest_time(at: time | None, zone: ZoneInfo, now: datetime) -> datetime | None:
    """The newest instant up to `now` at which a digest was to be sent."""
    if at is None:
        return None
    today = now.astimezone(zone).date()
    for day in (today, today - timedelta(days=1)):
        found = datetime.combine(day, at, zone).astimezone(UTC)
        if found <= now:
            return found
    return None


class _Sent:
    """What was sent last of each alarm, by kind; what a clock that was ahead recorded counts as the oldest."""

    def __init__(self, delivered: Sequence[Delivery], now: datetime) -> None:
        self._last: dict[tuple[str, Sent], Delivery] = {}
        for each in sorted(delivered, key=lambda each: (not clock.is_ahead(each.made_at, now), each.made_at)):
            self._last[each.alarm_id, each.kind] = each

    def last(self, alarm: AlarmEntry, kind: Sent) -> Delivery | None:
        return self._last.get((alarm.alarm_id, kind))


def _is_paged(alarm: AlarmEntry, sent: _Sent, ended: Silenced | None, now: datetime) -> bool:
    if alarm.state != "alarm" or place(alarm) is None:
        return False
    before = sent.last(alarm, "page")
    if before is None or ended is None:
        return before is None
    return ended.end <= now and (before.made_at < ended.end or clock.is_ahead(before.made_at, now))


def _is_solved(alarm: AlarmEntry, sent: _Sent) -> bool:
    return alarm.state == "resolved" and sent.last(alarm, "page") is not None and sent.last(alarm, "resolved") is None


def _is_in_digest(of: Incident, sent: _Sent, digest_at: datetime, now: datetime) -> bool:
    """Whether the digest has news of it: a warning that is new, or the end of something nobody was paged for.

    What is new since the time of the digest waits for the next one, but not until the time that a clock which was ahead
    recorded.
    """
    alarm, before = of.now, sent.last(of.now, "digest")
    made_at = of.changed.made_at
    if (made_at > digest_at and not clock.is_ahead(made_at, now)) or sent.last(alarm, "page") is not None:
        return False
    is_new = before is None or before.sequence < of.changed.sequence
    if alarm.state == "resolved":
        return is_new and (before is not None or place(alarm) is not None)
    return is_new and alarm.state in ("warning", "alarm") and place(alarm) is None


def _by_event(kind: Sent, alarms: Sequence[AlarmEntry]) -> Iterator[Message]:
    """One message an event, by the most important alarm of each."""
    groups: dict[str, list[AlarmEntry]] = {}
    for alarm in ordered(alarms):
        groups.setdefault(alarm.event, []).append(alarm)
    for event, group in groups.items():
        yield Message(kind, event, (*group,))
