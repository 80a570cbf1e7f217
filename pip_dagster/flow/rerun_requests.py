"""From a plan to the runs that a sensor asks for: pure, so that the same tick twice asks for the same runs."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pip_dagster.declaration.durations import doubled
from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.ranges import contiguous
from pip_dagster.declaration.reruns import Reach, Reruns
from pip_dagster.ledger.plan import Due, Kind

_KEY = "\x00"  # stands for a partition's key
_SAID = 400  # characters of reasons that a run's tag holds

# A promotion is its own sensor's; a failure is tried again by whichever is on.
_DECLARED: tuple[Kind, ...] = ("features_changed", "declaration_changed", "expectations_changed")
SOURCE_KINDS: frozenset[Kind] = frozenset(
    ("missing", "source_changed", *_DECLARED, "provisional", "arms_undecided", "blocked", "failed")
)
PROMOTION_KINDS: frozenset[Kind] = frozenset({"model_promoted", "failed"})


@dataclass(frozen=True)
class Earlier:
    """A finished run that was asked for the same partitions with the same wanted state."""

    outcome: Literal["success", "failure", "canceled"]
    ended_at: datetime


@dataclass(frozen=True)
class Request:
    """One run over contiguous partitions. `content` digests the range, what is wanted of each, and its attempt."""

    partitions: tuple[Partition, ...]
    content: str
    reasons: str

    def run_key(self, attempt: int) -> str:
        """Equal for equal content: Dagster launches a run key once."""
        return f"{self.content}-{attempt}"


def wanted_by(
    due: Sequence[Due], kinds: Collection[Kind], grid: Sequence[Partition], missing: Reach = "all"
) -> list[Due]:
    """Those due for one of the `kinds`; of the never made ones those that `missing` reaches from the grid's end."""
    newest = {partition.key: place for place, partition in enumerate(reversed(grid), start=1)}
    found = []
    for each in due:
        mine = [reason.kind for reason in each.reasons if reason.kind in kinds]
        if mine and (set(mine) != {"missing"} or _reaches(missing, each.partition, newest[each.partition.key])):
            found.append(each)
    return found


def requests(due: Sequence[Due], *, at_most: int) -> list[Request]:
    """Runs for these partitions: a run for each contiguous range, at most so many partitions in one; oldest first."""
    return [
        Request(tuple(partition for partition, _ in each), _content([d for _, d in each]), _said([d for _, d in each]))
        for each in contiguous([(d.partition, d) for d in due], at_most=at_most)
    ]


def next_attempt(earlier: Sequence[Earlier], reruns: Reruns, now: datetime) -> int | str:
    """The number of the attempt to make now, or why there is none to make.

    The ledger counts the attempts that failed of their own. This counts those that left no word there: whose process
    was killed, or that ended without having made what was asked for.
    """
    if not earlier:
        return 1
    last = max(earlier, key=lambda run: run.ended_at)
    if last.outcome == "canceled":
        return "its run was canceled: not asked for again before something changes"
    if len(earlier) >= reruns.attempts:
        return f"{len(earlier)} runs of {reruns.attempts} ended without making it: not asked for before a change"
    after = last.ended_at + doubled(reruns.back_off, len(earlier) - 1)
    if now < after:
        return f"its run ended without making it; asked for again from {after:%Y-%m-%d %H:%M:%S %Z}"
    return len(earlier) + 1


def _reaches(reach: Reach, partition: Partition, from_end: int) -> bool:
    if isinstance(reach, str):
        return reach == "all"
    if reach.last is not None:
        return from_end <= reach.last
    return reach.since is not None and partition.start_local.date() >= reach.since


def _content(due: Sequence[Due]) -> str:
    told = "\n".join(f"{each.partition.key} {each.wanted} {each.attempt}" for each in due)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _said(due: Sequence[Due]) -> str:
    """Each reason once, with how many partitions it is of where that is not all.

    Those that differ by no more than the partition they name are one, from the first to the last of them.
    """
    of: dict[str, list[str]] = {}
    for each in due:
        for reason in each.reasons:
            of.setdefault(reason.text, []).append(each.partition.key)
    alike: dict[str, list[str]] = {}
    for text, keys in of.items():
        alike.setdefault(text.replace(f" {keys[0]}", _KEY) if len(keys) == 1 else text, []).extend(keys)
    parts = []
    for text, keys in alike.items():
        named = f" {keys[0]}" if len(keys) == 1 else f" {keys[0]} to {keys[-1]}"
        parts.append(text.replace(_KEY, named) + (f" ({len(keys)} of {len(due)})" if len(keys) != len(due) else ""))
    said = "; ".join(parts)
    return said if len(said) <= _SAID else said[: _SAID - 1] + "…"


def skipped(held: Mapping[str, str], busy: Collection[str], over_cap: int, never_made: int, current: int) -> str:
    """Why a tick asks for nothing, in a sentence for each cause."""
    parts = [f"{key}: {why}" for key, why in list(held.items())[:10]]
    if len(held) > 10:
        parts.append(f"and {len(held) - 10} more")
    if busy:
        parts.append(f"{len(busy)} due partitions are in runs that are queued or running")
    if over_cap:
        parts.append(f"{over_cap} runs wait for the next look")
    if not parts:
        parts.append(f"Nothing is due: {current} partitions are as they should be")
    if never_made:
        parts.append(f"{never_made} that were never made are left to a backfill, by sensors.source_changes.missing")
    return "; ".join(parts) + "."
