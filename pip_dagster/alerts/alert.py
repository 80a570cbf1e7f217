"""The content of an alert, and which partitions an alert was already sent for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pip_dagster.declaration.automation import Event

Kind = Literal[Event, "digest"]

_SHOWN, _ALARMS = 20, 100
_LENGTH = 500


@dataclass(frozen=True)
class Alert:
    """One event that somebody should know about.

    Attributes:
        partitions: Partition → what is wrong with it, in the order of time.
        alarms: The alarms that it is about, with all their fields, the most important first.
        lines: Their text for people; by default that of the partitions.
    """

    kind: Kind
    pipeline: str
    title: str
    partitions: Mapping[str, str] = field(default_factory=dict)
    run_id: str | None = None
    alarms: Sequence[Mapping[str, Any]] = ()
    lines: Sequence[str] = ()

    def payload(self, now: datetime | None = None) -> str:
        """The alert as JSON: `text` is the whole alert for people and chat rooms, the other members are for machines.

        At most 20 partitions are listed, the newest, and at most 100 alarms; `partition_count` and `alarm_count` are
        the numbers of all.
        """
        newest = [*self.partitions][-_SHOWN:]
        listed = [{"partition": key, "reason": self.partitions[key][:_LENGTH]} for key in newest]
        lines = [self.title[:_LENGTH]]
        if self.lines:
            lines += [f"- {line[:_LENGTH]}" for line in self.lines[:_SHOWN]]
            lines += [f"- and {len(self.lines) - _SHOWN} more"] if len(self.lines) > _SHOWN else []
        else:
            lines += [f"- {each['partition']}: {each['reason']}" for each in listed]
        if len(self.partitions) > len(listed) and not self.lines:
            lines.append(f"- and {len(self.partitions) - len(listed)} older ones")
        content = {
            "kind": self.kind,
            "pipeline": self.pipeline,
            "text": "\n".join(lines),
            "title": self.title[:_LENGTH],
            "partitions": listed,
            "partition_count": len(self.partitions),
            "run_id": self.run_id,
            "at": (now or datetime.now(UTC)).isoformat(timespec="seconds"),
        }
        if self.alarms:
            content |= {"alarms": [*self.alarms[:_ALARMS]], "alarm_count": len(self.alarms)}
        return json.dumps(content, ensure_ascii=False)


def remembered(cursor: str | None) -> dict[str, str] | None:
    """What was reported up to the last tick, from the sensor's cursor; None before the first tick and after a reset."""
    try:
        reported = json.loads(cursor or "")
    except ValueError:
        return None
    is_ours = isinstance(reported, dict) and all(isinstance(entry, str) for entry in reported.values())
    return reported if is_ours else None


def news(standing: Mapping[str, str], reported: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The partitions to report, in the order of `standing`, and everything that is reported once they are.

    `standing` maps each affected partition to the id of its ledger entry. A partition that recovers is dropped from
    what is reported, so that it is reported again if it is affected again.
    """
    fresh = [key for key, entry in standing.items() if reported.get(key) != entry]
    return fresh, dict(standing)
