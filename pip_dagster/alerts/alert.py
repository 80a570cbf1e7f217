"""What an alert says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

Kind = Literal["run_failed", "partition_blocked", "drift"]

_SHOWN = 20
_LENGTH = 500


@dataclass(frozen=True)
class Alert:
    """One thing that somebody should look at."""

    kind: Kind
    pipeline: str
    title: str
    partitions: Mapping[str, str] = field(default_factory=dict)  # partition → what is the matter with it
    run_id: str | None = None

    def payload(self, now: datetime | None = None) -> str:
        """The alert as JSON: `text` is the whole for people and chat rooms, the other members are for machines.

        At most 20 partitions are listed, the newest; `partition_count` says how many there are.
        """
        newest = sorted(self.partitions)[-_SHOWN:]
        listed = [{"partition": key, "reason": self.partitions[key][:_LENGTH]} for key in newest]
        lines = [self.title[:_LENGTH], *(f"- {each['partition']}: {each['reason']}" for each in listed)]
        if len(self.partitions) > len(listed):
            lines.append(f"- and {len(self.partitions) - len(listed)} older ones")
        return json.dumps(
            {
                "kind": self.kind,
                "pipeline": self.pipeline,
                "text": "\n".join(lines),
                "title": self.title[:_LENGTH],
                "partitions": listed,
                "partition_count": len(self.partitions),
                "run_id": self.run_id,
                "at": (now or datetime.now(UTC)).isoformat(timespec="seconds"),
            },
            ensure_ascii=False,
        )


def remembered(cursor: str | None) -> dict[str, str] | None:
    """What was told by the last look, as it kept it; None where that is lost: at first, or when a person reset it."""
    try:
        told = json.loads(cursor or "")
    except ValueError:
        return None
    is_ours = isinstance(told, dict) and all(isinstance(entry, str) for entry in told.values())
    return told if is_ours else None


def news(standing: Mapping[str, str], told: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Which partitions have something that was not told yet, and what has been told once it is.

    `standing` names for each partition that has something now what it is (the id of the ledger's entry); one that
    recovers is forgotten, so that it is news again when it comes back.
    """
    fresh = [key for key, entry in standing.items() if told.get(key) != entry]
    return sorted(fresh), dict(standing)
