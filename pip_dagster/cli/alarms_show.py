"""How `pip-dagster alarms` prints alarms: a block each, which fits 80 columns, or JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from pip_dagster.alerts.alarm_text import after_silence, chance, figure, gathered, name_of, of_group, record
from pip_dagster.alerts.paging import incidents, ordered
from pip_dagster.cli.cells import moment
from pip_dagster.cli.output import echo, show_json, terminal_width
from pip_dagster.ledger.alarms import AlarmEntry
from pip_dagster.ledger.not_live import NotLive
from pip_dagster.ledger.silences import Silenced, ended_silence, silence_of
from pip_dagster.plural import plural

_WIDTH = 80
_LONGEST = 300
_MOST = 10  # partitions that are blocked or failed; `status` lists all


@dataclass(frozen=True)
class Listed:
    """Every row of the alarms, the silences, the time at which they are listed, and which are of a former version.

    `undeclared`: the pipelines that the project declares no longer; nothing judges their alarms.
    `not_live`: the newest partitions of declared pipelines that are blocked or failed, which a report lists as alarms.
    """

    history: Sequence[AlarmEntry]
    silences: Sequence[Silenced]
    now: datetime
    outlived: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    undeclared: Collection[str] = ()
    not_live: Sequence[NotLive] = ()

    @property
    def alarms(self) -> list[AlarmEntry]:
        """The newest row of each alarm: those that hold first, the most important of them first."""
        found = [each.now for each in incidents(self.history)]
        return [*ordered([each for each in found if each.is_open]), *(each for each in found if not each.is_open)]

    def acknowledged(self, alarm: AlarmEntry) -> AlarmEntry | None:
        """The row by which somebody acknowledged it last, if that holds."""
        if alarm.state != "acknowledged":
            return None
        mine = (row for row in self.history if row.alarm_id == alarm.alarm_id and row.reason)
        return max(mine, key=lambda row: row.sequence, default=None)

    def silence(self, alarm: AlarmEntry) -> Silenced | None:
        """The silence that holds for it."""
        return silence_of(self.silences, alarm, self.now)


def in_alarm(listed: Listed) -> bool:
    """Whether something is in alarm, acknowledged or not, and nobody silenced it; of declared pipelines.

    A partition that is blocked or failed is.
    """
    if listed.not_live:
        return True
    found = (each for each in listed.alarms if each.is_open and each.severity == "alarm")
    found = (each for each in found if each.pipeline not in listed.undeclared)
    return any(listed.silence(each) is None for each in found)


def show_alarms(listed: Listed, everything: bool) -> None:
    """Print those that hold; with `everything` also the resolved ones, and the history of each."""
    shown = [each for each in listed.alarms if everything or each.is_open]
    width = min(terminal_width() or _WIDTH, _WIDTH)
    groups = [[each] for each in shown] if everything else gathered(shown, partial(_alike, listed))
    for each in listed.not_live[:_MOST]:
        echo(
            _indented(f"{each.status.upper()}  {each.pipeline}: partition {each.partition_key} is not live", width, "")
        )
        echo(_indented(textwrap.shorten(each.reason, _LONGEST), width, "  "))
        echo(f"  pip-dagster lineage {each.pipeline} {each.partition_key}\n")
    shown, grouped = [group[0] for group in groups if len(group) == 1], [group for group in groups if len(group) > 1]
    for alarm in shown:
        head, *lines = _block(listed, alarm)
        echo(textwrap.fill(head, width, break_long_words=False))
        for text in lines:
            is_command = text.startswith("pip-dagster ")
            echo(f"  {text}" if is_command else _indented(text, width, "  "))
        if everything:
            for row in (row for row in listed.history if row.alarm_id == alarm.alarm_id):
                echo(_indented(_event(row), width, "    "))
        echo("")
    for group in grouped:
        silent = ", silenced" if listed.silence(group[0]) else ""
        text = f"{group[0].state.upper()}{silent}  {group[0].pipeline}: {of_group(group)}. Each: --all"
        echo(textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False) + "\n")
    for silenced in (each for each in listed.silences if each.is_on(listed.now)):
        echo(_silence(silenced))
    echo(_summary(listed))


def _indented(text: str, width: int, by: str) -> str:
    return textwrap.indent("\n".join(textwrap.wrap(text, width - len(by), break_long_words=False)), by)


def _alike(listed: Listed, alarm: AlarmEntry) -> tuple[str, str, bool] | None:
    if alarm.severity != "warning":
        return None
    return alarm.pipeline, alarm.state, listed.silence(alarm) is not None


def show_alarms_json(listed: Listed, everything: bool) -> None:
    """The same for machines."""
    found = []
    for alarm in listed.alarms:
        if everything or alarm.is_open:
            found.append(_record(listed, alarm, everything))
    on = [each for each in listed.silences if each.is_on(listed.now)]
    lost = [asdict(each) for each in listed.not_live]
    show_json(
        {"alarms": found, "not_live": lost, "silences": [asdict(each.silence) | {"end": each.end} for each in on]}
    )


def _record(listed: Listed, alarm: AlarmEntry, everything: bool) -> dict[str, Any]:
    silenced, acknowledged = listed.silence(alarm), listed.acknowledged(alarm)
    found = record(alarm) | {
        "outlived_by_version": listed.outlived.get(alarm.alarm_id, (None, None))[1],
        "silenced_until": silenced.end if silenced else None,
        "silence_id": silenced.silence.silence_id if silenced else None,
        "acknowledged_by": acknowledged.made_by if acknowledged else None,
        "acknowledged_why": acknowledged.reason if acknowledged else None,
    }
    if everything:
        found["history"] = [record(row) for row in listed.history if row.alarm_id == alarm.alarm_id]
    return found


def _block(listed: Listed, alarm: AlarmEntry) -> Iterator[str]:
    silent = ", silenced" if listed.silence(alarm) else ""
    what = alarm.event if alarm.subject == alarm.event else f"{alarm.event} of {name_of(alarm)}"
    yield f"{alarm.state.upper()}{silent}  {alarm.pipeline}: {what}  [{alarm.alarm_id}]"
    newest = f", newest {alarm.partition_key}" if alarm.partition_key != alarm.since else ""
    window = f"window of {plural(alarm.partitions, 'partition')}, {plural(alarm.rows, 'row')}"
    yield f"since {alarm.since}{newest}; {window}"
    if alarm.value is not None:
        against = f", threshold {figure(alarm.threshold)}" if alarm.threshold is not None else ""
        yield f"{alarm.rule}: {figure(alarm.value)}{against}; fires by chance: {chance(alarm)}"
    if alarm.cause:
        yield f"likely cause: {alarm.cause}"
    if alarm.good and alarm.is_open:
        yield f"good since {alarm.good[0]}; resolved after 3 such partitions"
    if acknowledged := listed.acknowledged(alarm):
        yield f"acknowledged by {acknowledged.made_by}, {moment(acknowledged.made_at)}: {acknowledged.reason}"
    silenced = listed.silence(alarm)
    if silenced:
        yield f"silent until {moment(silenced.end)} by {silenced.silence.made_by}: {silenced.silence.reason}"
    elif alarm.is_open and (ended := ended_silence(listed.silences, alarm, listed.now)):
        yield after_silence(ended)
    if alarm.alarm_id in listed.outlived:
        before, now = listed.outlived[alarm.alarm_id]
        yield f"of v{before}; v{now} scores since, and is not judged against enough partitions yet"
    if alarm.pipeline in listed.undeclared:
        yield f"{alarm.pipeline} is not declared any longer: nothing judges it, and --check does not count it"
    if alarm.quiet and alarm.is_open:
        yield "found while the pipeline was catching up: nobody is notified until a recent partition confirms it"
    if alarm.is_open and alarm.command:
        yield alarm.command


def _event(row: AlarmEntry) -> str:
    what = f" {row.reason}" if row.reason else ""
    value = f" {figure(row.value)}" if not row.reason and not row.good else ""
    good = f" good: {', '.join(row.good)}" if row.good else ""
    return f"{moment(row.made_at)}  {row.state} {row.partition_key}{value}{good} by {row.made_by}{what}"


def _silence(silenced: Silenced) -> str:
    of = silenced.silence
    until = moment(silenced.end)
    text = f"{of.pipeline}: silent until {until}: {of.about}, by {of.made_by}: {of.reason} [{of.silence_id}]"
    return " ".join(text.split())  # a reason of several lines would look like lines of this command


def _summary(listed: Listed) -> str:
    found = [each for each in listed.alarms if each.is_open]
    lost = f"{plural(len(listed.not_live), 'partition')} blocked or failed" if listed.not_live else ""
    if not found:
        return f"In alarm: {lost}." if lost else "No alarm is open."
    counts = {"in alarm": "alarm", "acknowledged": "acknowledged", "warnings": "warning"}
    named = [f"{sum(each.state == state for each in found)} {what}" for what, state in counts.items()]
    silent = sum(listed.silence(each) is not None for each in found)
    named += [lost] if lost else []
    return ", ".join(named) + (f"; {silent} of them silenced." if silent else ".")
