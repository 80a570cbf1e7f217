"""The states of an alarm, as a function of what is known and what was found; it reads and writes nothing.

`ok → warning → alarm → acknowledged → resolved`: an alarm begins with a bad finding, and is resolved after three
partitions that are good, so that a figure at its threshold does not notify each day. A finding that could not be judged
changes nothing. Partitions count once, whatever is judged again, and only forward: what is found of a partition older
than the newest one that its rule judged changes no alarm, unless it is about what is there now. Rules are independent:
one that waits for labels lags by weeks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pip_dagster import clock
from pip_dagster.ledger.alarms import AlarmEntry, AlarmState
from pip_dagster.ledger.record import new_id
from pip_dagster.monitoring.finding import Event, Finding

# Partitions that must be good before an alarm is resolved. What has arrived is no longer late: these events are about
# what is there now. Their newest partition can be an older one than before, such as after a change of the grid's end.
RESOLVED_AFTER: Mapping[Event, int] = {"freshness": 1, "labels": 1, "delivery": 1}
_RESOLVED_AFTER = 3

# The columns of an alarm that are those of the finding.
_OF_FINDING = (
    *("event", "rule", "subject", "scope", "weight", "scoring_id", "partitions"),
    *("value", "threshold", "chance", "rows", "cause", "command"),
)

# The columns by which an alarm says something new.
_NEWS = ("state", "severity", "partition_key", "scoring_id", "good", "quiet")

_STATES = ("unjudged", "ok", "warning", "alarm")

Rule = tuple[str, str]  # the event and the rule's name


@dataclass(frozen=True)
class KnownAlarms:
    """What the ledger holds of a pipeline: the newest row of each alarm, and by rule the newest judged partition."""

    alarms: tuple[AlarmEntry, ...] = ()
    marks: Mapping[Rule, str] = field(default_factory=dict)

    def after(self, change: AlarmChange) -> KnownAlarms:
        """What it holds once a change is stored."""
        alarms = {each.alarm_id: each for each in (*self.alarms, *change.entries)}
        return KnownAlarms((*alarms.values(),), {**self.marks, **change.marks})


@dataclass(frozen=True)
class AlarmChange:
    """What to store: rows of alarms, and by rule the newest partition that is judged now."""

    entries: tuple[AlarmEntry, ...]
    marks: Mapping[Rule, str]


@dataclass(frozen=True)
class Judging:
    """Whose findings are judged. `order` sorts partition keys by time; `quiet`: the pipeline is catching up."""

    pipeline: str
    by: str
    order: Callable[[str], Any]
    quiet: bool = False


def advance(known: KnownAlarms, findings: Sequence[Finding], judging: Judging) -> AlarmChange:
    """The rows that these findings add, partition by partition in order."""
    entries: list[AlarmEntry] = []
    marks: dict[Rule, str] = {}
    state = known
    groups: dict[tuple[Rule, str], dict[str, Finding]] = {}
    for each in sorted(findings, key=lambda each: _STATES.index(each.state)):  # of two for a subject the worse one
        groups.setdefault(((each.event, each.rule), each.partition_key), {})[each.subject] = each
    back = _gone_back(known, groups, judging.order)
    for (rule, key), found in sorted(groups.items(), key=lambda item: judging.order(item[0][1])):
        group = [*found.values()]
        if all(each.state == "unjudged" for each in group):
            continue
        newest = state.marks.get(rule)
        is_older = newest is not None and judging.order(key) < judging.order(newest)
        if is_older and back.get(rule) != key:
            continue
        added = tuple(_of_partition(state, key, group, judging))
        change = AlarmChange(added, {} if is_older or key == newest else {rule: key})
        entries += added
        marks |= change.marks
        state = state.after(change)
    return AlarmChange((*entries,), marks)


def _gone_back(known: KnownAlarms, judged: Iterable[tuple[Rule, str]], order: Callable[[str], Any]) -> dict[Rule, str]:
    """The newest partition of the rules about what is there now, where it is an older one than before."""
    newest: dict[Rule, str] = {}
    for rule, key in judged:
        newest[rule] = max(key, newest.get(rule, key), key=order)
    marks = known.marks
    return {of: key for of, key in newest.items() if of[0] in RESOLVED_AFTER and order(key) < order(marks.get(of, key))}


def retired(known: KnownAlarms, judging: Judging, why: Callable[[AlarmEntry], str]) -> list[AlarmEntry]:
    """The rows that resolve open alarms which nothing judges any more; `why`: empty for the others."""
    opened = [(each, why(each)) for each in known.alarms if each.is_open]
    return [_next(each, judging, state="resolved", cause=cause, good=[]) for each, cause in opened if cause]


def _of_partition(known: KnownAlarms, key: str, group: Sequence[Finding], judging: Judging) -> list[AlarmEntry]:
    """The rows of one rule at one partition; an open alarm without a finding was good there."""
    rule = (group[0].event, group[0].rule)
    opened = {each.subject: each for each in known.alarms if each.is_open and (each.event, each.rule) == rule}
    added: list[AlarmEntry] = []
    for finding in group:
        before = opened.pop(finding.subject, None)
        if finding.state in ("warning", "alarm"):
            entry = _begun(known, finding, judging) if before is None else _bad(before, finding, judging)
        elif finding.state == "ok" and before is not None:
            entry = _good(before, key, judging)
        else:
            continue
        if entry is not None:
            added.append(entry)
    added += [entry for alarm in opened.values() if (entry := _good(alarm, key, judging)) is not None]
    return added


def _begun(known: KnownAlarms, finding: Finding, judging: Judging) -> AlarmEntry:
    subject = (finding.event, finding.rule, finding.subject)
    earlier = sum((each.event, each.rule, each.subject) == subject for each in known.alarms)
    content = "\x1f".join((judging.pipeline, *subject, finding.partition_key, str(earlier)))
    severity: Any = finding.state
    return AlarmEntry(
        pipeline=judging.pipeline,
        alarm_id=hashlib.sha256(content.encode()).hexdigest()[:10],
        sequence=1,
        state=severity,
        severity=severity,
        since=finding.partition_key,
        partition_key=finding.partition_key,
        good=[],
        quiet=judging.quiet and finding.event not in ("freshness", "delivery"),
        made_at=clock.wall(),
        made_by=judging.by,
        **{name: getattr(finding, name) for name in _OF_FINDING},
    )


def _bad(alarm: AlarmEntry, finding: Finding, judging: Judging) -> AlarmEntry | None:
    state: AlarmState = alarm.state
    severity = alarm.severity
    if finding.state == "alarm" and severity == "warning":
        state = severity = "alarm"  # also where the warning was acknowledged
    found = {name: getattr(finding, name) for name in _OF_FINDING}
    quiet = alarm.quiet and judging.quiet
    after = _next(alarm, judging, state=state, severity=severity, good=[], quiet=quiet, **found)
    return _unless_same(alarm, replace(after, partition_key=finding.partition_key))


def _good(alarm: AlarmEntry, key: str, judging: Judging) -> AlarmEntry | None:
    if key in alarm.good:
        return None
    good = [*alarm.good, key]
    enough = len(good) >= RESOLVED_AFTER.get(alarm.event, _RESOLVED_AFTER)  # type: ignore[call-overload]
    state: AlarmState = "resolved" if enough else alarm.state
    return _next(alarm, judging, state=state, good=good, partition_key=key)


def _next(alarm: AlarmEntry, judging: Judging, **changed: Any) -> AlarmEntry:
    fixed: dict[str, Any] = {"event_id": new_id(), "made_at": clock.wall(), "made_by": judging.by, "reason": ""}
    return replace(alarm, sequence=alarm.sequence + 1, **fixed, **changed)


def _unless_same(before: AlarmEntry, after: AlarmEntry) -> AlarmEntry | None:
    """None where nothing is new: the same partition, judged again."""
    return None if all(getattr(before, name) == getattr(after, name) for name in _NEWS) else after
