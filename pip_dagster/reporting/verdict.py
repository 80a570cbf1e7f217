"""The head of a report: six tiles and a sentence."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.alerts.alarm_text import gathered
from pip_dagster.plural import plural
from pip_dagster.reporting.content import AlarmLine, Day, MetricSeries, State, Summary, Tile

if TYPE_CHECKING:
    from pip_dagster.declaration.spec import PipelineSpec

_RAISED: tuple[tuple[State, str], ...] = (("alarm", "In alarm:"), ("warning", "No alarm. Warned of"))
_NAMED = 3


@dataclass(frozen=True)
class Headline:
    """The figure of the newest partitions that count, in words, and why it is not judged; empty if it is."""

    text: str
    unjudged: str


def tiles_of(
    spec: PipelineSpec,
    days: Sequence[Day],
    alarms: Sequence[AlarmLine],
    performance: Sequence[MetricSeries],
    unavailable: dict[str, str],
    measured: Headline | None = None,
) -> tuple[Tile, ...]:
    """Freshness, volume, quality, drift, performance and estimate."""
    return (
        _freshness(days, alarms),
        _volume(spec, days),
        _quality(days),
        _drift(days, alarms, unavailable),
        _performance(measured, alarms, unavailable),
        _estimate(performance, alarms, unavailable),
    )


def verdict_of(pipeline: str, tiles: Sequence[Tile], alarms: Sequence[AlarmLine]) -> Summary:
    """The worst of it in a sentence, since when, and what to do. It never states that predictions are right."""
    raised = [each for each in alarms if each.status != "resolved"]
    for state, first in _RAISED:
        found = [each for each in raised if each.state == state]
        tile = next((each for each in tiles if each.state == state), None)
        if found:
            since = min((each.since for each in found if each.since), default=None)
            return Summary(state, f"{first} {_subjects(found)}.", since, found[0].command)
        if tile:
            sentence = f"{tile.name.capitalize()}: {tile.text}"
            return Summary(state, sentence, None, f"pip-dagster status {pipeline}")
    judged = [tile for tile in tiles if tile.state == "ok"]
    if not judged:
        return Summary("unknown", "Nothing is judged yet.", None, f"pip-dagster status {pipeline}")
    word = next((tile.word for tile in tiles if tile.name == "performance" and tile.state == "unknown"), "")
    open_question = f" Whether predictions are right is {word}." if word else ""
    listed = ", ".join(tile.name for tile in judged)
    return Summary("ok", f"No rule is in alarm; judged: {listed}.{open_question}", None, "")


def _subjects(lines: Sequence[AlarmLine]) -> str:
    named = [titled(each) for each in lines[:_NAMED]]
    more = len(lines) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def titled(line: AlarmLine) -> str:
    """What an alarm is about."""
    if line.event in ("blocked", "failed"):
        return f"{line.subject} {line.event}"
    if line.event == "audit":
        return "the audit chain is broken"
    if line.event == "labels":
        return "overdue or unusual labels"
    return line.event if line.subject in ("", line.event) else f"{line.event} of {line.subject}"


def grouped(lines: Sequence[AlarmLine]) -> list[list[AlarmLine]]:
    """Alarms as the page shows them: warnings of one rule together where there are three or more, the others alone."""
    return gathered(lines, lambda each: "" if each.status == "warning" and not each.silenced else None, least=3)


def _freshness(days: Sequence[Day], alarms: Sequence[AlarmLine]) -> Tile:
    live = [day for day in days if day.is_live]
    if not live:
        return Tile("freshness", "alarm" if days else "unknown", "none", "No partition is live.")
    behind = len(days) - 1 - days.index(live[-1])
    gaps = len(days) - len(live) - behind
    if late := next((each for each in alarms if each.event == "freshness" and each.status != "resolved"), None):
        return Tile(
            "freshness", late.state, "late", f"{late.cause or late.subject}; newest live: {live[-1].partition}."
        )
    if behind:
        text = f"Not live: {_listed([day.partition for day in days[-behind:]])}."
        return Tile("freshness", "alarm", "behind", text)
    if gaps:
        text = f"Not live: {_listed([day.partition for day in days if not day.is_live])}."
        return Tile("freshness", "warning", "gaps", text)
    if live[-1].status == "provisional":
        return Tile("freshness", "warning", "provisional", f"{live[-1].partition} was scored before sources closed.")
    return Tile("freshness", "ok", "complete", f"Every partition up to {live[-1].partition} is live.")


def _volume(spec: PipelineSpec, days: Sequence[Day]) -> Tile:
    rows = [day.rows or 0 for day in days if day.is_live]
    if not rows:
        return Tile("volume", "unknown", "none", "No rows.")
    usual = statistics.median(rows[-29:-1] or rows)
    share = rows[-1] / usual if usual else 1.0
    text = f"{plural(rows[-1], 'row')}; the median before is {usual:,.0f}."
    if usual and share < spec.min_row_share:
        return Tile("volume", "alarm", "few", text)
    if usual and not 0.5 <= share <= 2:
        return Tile("volume", "warning", "unusual", text)
    return Tile("volume", "ok", "usual", text)


def _quality(days: Sequence[Day]) -> Tile:
    if not days:
        return Tile("quality", "unknown", "none", "No partition.")
    newest = days[-1]
    blocked = [day for day in days if day.status in ("blocked", "failed")]
    if newest.status in ("blocked", "failed") or newest.critical:
        return Tile("quality", "alarm", newest.status, newest.reason or f"{newest.partition}: {_listed(newest.unmet)}")
    quarantined = sum(day.quarantined or 0 for day in days)
    held = f"{plural(quarantined, 'row')} in quarantine over the period."
    if blocked:
        return Tile("quality", "warning", "blocked", f"{plural(len(blocked), 'partition')} blocked or failed. {held}")
    if newest.unmet:
        return Tile("quality", "warning", "unmet", f"{_listed(newest.unmet)} in {newest.partition}. {held}")
    return Tile("quality", "ok", "met", f"Expectations are met in {newest.partition}. {held}")


def _drift(days: Sequence[Day], alarms: Sequence[AlarmLine], unavailable: dict[str, str]) -> Tile:
    if "drift" in unavailable:
        return Tile("drift", "unknown", "not judged", unavailable["drift"])
    judged = [day for day in days if day.drift]
    if not judged:
        return Tile("drift", "unknown", "not judged", "No partition of the period is profiled.")
    newest = judged[-1]
    since = since_of([day.drift == "alarm" for day in judged])
    if newest.drift == "alarm":
        return Tile("drift", "alarm", "in alarm", f"{_listed(newest.drifted)}, since {judged[since].partition}.")
    if newest.drift == "unjudged":
        return Tile("drift", "unknown", "not judged", "Too few partitions before it to know what is usual.")
    past = sum(day.drift == "alarm" for day in judged)
    if lasting := [each.subject for each in alarms if each.event == "drift" and each.status != "resolved"]:
        return Tile("drift", "warning", "warning", f"{_listed(lasting)}: see the alarms below.")
    return Tile("drift", "ok", "usual", f"No column in alarm; {plural(past, 'partition')} of the period had one.")


def _performance(measured: Headline | None, alarms: Sequence[AlarmLine], unavailable: dict[str, str]) -> Tile:
    if "performance" in unavailable:
        return Tile("performance", "unknown", "not measured", unavailable["performance"])
    if measured is None:
        return Tile("performance", "unknown", "not measured", "No labels are mature yet.")
    tile = _by_alarms("performance", alarms, measured.text, "no loss found")
    if tile.state == "ok" and measured.unjudged:
        return Tile("performance", "unknown", "not judged", f"{measured.unjudged}. {measured.text}")
    return tile


def _estimate(series: Sequence[MetricSeries], alarms: Sequence[AlarmLine], unavailable: dict[str, str]) -> Tile:
    if "estimates" in unavailable:
        return Tile("estimate", "unknown", "none", unavailable["estimates"])
    hidden = next((each.estimates_hidden for each in series if each.estimates_hidden), None)
    if hidden:
        return Tile("estimate", "warning", "withdrawn", hidden)
    with_estimate = [(each, point) for each in series for point in each.points if point.estimate is not None]
    if not with_estimate:
        return Tile("estimate", "unknown", "none", "Nothing is estimated.")
    of = with_estimate[0][0]
    newest = [point for each, point in with_estimate if each is of][-1]
    expected = f"{of.metric} {_number(newest.estimate)} expected in {newest.partition}"
    text = f"{expected}, if outcomes follow the features as before."
    return _by_alarms("estimate", alarms, text, "as before")


def _by_alarms(event: str, alarms: Sequence[AlarmLine], text: str, word: str) -> Tile:
    raised = [each for each in alarms if each.event == event and each.status != "resolved"]
    for state, named in (("alarm", "in alarm"), ("warning", "warning")):
        if found := [each for each in raised if each.state == state]:
            since = f", since {found[0].since}" if found[0].since else ""
            return Tile(event, found[0].state, named, f"{_subjects(found)}{since}. {text}")
    return Tile(event, "ok", word, text)


def since_of(raised: Sequence[bool]) -> int:
    """Where the unbroken run of True at the end begins; the length where the last is False."""
    at = len(raised)
    while at and raised[at - 1]:
        at -= 1
    return at


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
