"""What a rule of monitoring says of one subject in one partition. Alarms, checks and reports are made of findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Event = Literal["drift", "performance", "labels", "estimate", "freshness", "operations", "delivery"]
FindingState = Literal["ok", "warning", "alarm", "unjudged"]
Scope = Literal["score", "decision", "feature", ""]


def is_value(value: str | None) -> str:
    """The end of a condition that a segment has this value: in quotes where it would not show."""
    if value is None:
        return "is NULL"
    return f"= {value}" if value.isprintable() and value == value.strip() != "" else f"= {value!r}"


@dataclass(frozen=True)
class Finding:
    """One verdict of one rule.

    Attributes:
        event: What kind of finding, which is how declarations and alerts name it.
        rule: The rule's name, one word, such as `days` or `week`.
        subject: What it is of: a column, or a metric with its segment, such as `auc where origin = JFK`.
        partition_key: The newest partition of the window.
        scoring_id: The live scoring of that partition; None where there is none.
        partitions: How many partitions the window has.
        state: `warning` notifies nobody at once; `unjudged` neither raises nor resolves an alarm.
        value: The figure that was judged.
        threshold: What it is compared with.
        chance: The probability that the rule fires on a partition where nothing has changed; None where not known.
        rows: Rows of the window.
        cause: The likely cause, in words; empty if unknown.
        command: The command to type next.
        scope: What the subject of drift is; the order in which alarms are sent depends on it.
        weight: Orders the findings of one cause, the largest first: of a feature its gain times the excess.
    """

    event: Event
    rule: str
    subject: str
    partition_key: str
    scoring_id: str | None
    partitions: int
    state: FindingState
    value: float | None
    threshold: float | None
    chance: float | None
    rows: int
    cause: str
    command: str
    scope: Scope = ""
    weight: float | None = None
