"""From a plan to the runs that a sensor requests: pure, so that the same tick twice requests the same runs."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pip_dagster.declaration.durations import doubled
from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.ranges import contiguous
from pip_dagster.declaration.reruns import Reach, Reruns, reaches
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.ledger.plan import Kind, Stale

_KEY = "\x00"  # stands for a partition's key
_LONGEST = 400  # characters of reasons in a run's tag

# A promotion has its own sensor; a failure is retried by either.
_DECLARED: tuple[Kind, ...] = ("features_changed", "declaration_changed", "expectations_changed")
SOURCE_KINDS: frozenset[Kind] = frozenset(
    ("missing", "source_changed", *_DECLARED, "provisional", "arms_undecided", "blocked", "failed")
)
PROMOTION_KINDS: frozenset[Kind] = frozenset({"model_promoted", "failed"})


@dataclass(frozen=True)
class Earlier:
    """A finished run that was requested for the same partitions with the same wanted state."""

    outcome: Literal["success", "failure", "canceled"]
    ended_at: datetime


@dataclass(frozen=True)
class Request:
    """One run over contiguous partitions. `content`: a digest of the range and of each partition's wanted state."""

    partitions: tuple[Partition, ...]
    content: str
    reasons: str

    def run_key(self, attempt: int) -> str:
        """Equal for equal content: Dagster launches a run key once."""
        return f"{self.content}-{attempt}"


def wanted_by(
    stale: Sequence[Stale], kinds: Collection[Kind], grid: Sequence[Partition], missing: Reach = "all"
) -> list[Stale]:
    """Those stale for one of the `kinds`; of those never built only the ones that `missing` reaches."""
    newest = {partition.key: place for place, partition in enumerate(reversed(grid), start=1)}
    found = []
    for each in stale:
        mine = [reason.kind for reason in each.reasons if reason.kind in kinds]
        if mine and (set(mine) != {"missing"} or reaches(missing, each.partition, newest[each.partition.key])):
            found.append(each)
    return found


def requests(stale: Sequence[Stale], *, at_most: int) -> list[Request]:
    """One run for each contiguous range, of at most this many partitions; oldest first."""
    of = {each.partition: each for each in stale}
    runs = [(tuple(run), [of[each] for each in run]) for run in contiguous(list(of), at_most=at_most)]
    return [Request(partitions, _content(each), _reasons(each)) for partitions, each in runs]


def next_attempt(earlier: Sequence[Earlier], reruns: Reruns, now: datetime) -> int | str:
    """The number of the attempt to request now, or why there is none.

    The ledger counts the attempts that failed by themselves. This counts runs that left no entry there: their process
    was killed, or they ended without building what was requested.
    """
    if not earlier:
        return 1
    last = max(earlier, key=lambda run: run.ended_at)
    if last.outcome == "canceled":
        return "its run was canceled: not requested again before something changes"
    if len(earlier) >= reruns.attempts:
        ended = f"{plural(len(earlier), 'run')} of {reruns.attempts} ended without building it"
        return f"{ended}: not requested again before a change"
    after = last.ended_at + doubled(reruns.back_off, len(earlier) - 1)
    if now < after:
        return f"its run ended without building it; requested again from {after:%Y-%m-%d %H:%M:%S %Z}"
    return len(earlier) + 1


def _content(stale: Sequence[Stale]) -> str:
    lines = "\n".join(f"{each.partition.key} {each.wanted} {each.attempt}" for each in stale)
    return hashlib.sha256(lines.encode()).hexdigest()[:32]


def _reasons(stale: Sequence[Stale]) -> str:
    """Each reason once, with its number of partitions where that is not all.

    Reasons that differ only in the partition that they name become one, which names the first and the last.
    """
    of: dict[str, list[str]] = {}
    for each in stale:
        for reason in each.reasons:
            of.setdefault(reason.text, []).append(each.partition.key)
    alike: dict[str, list[str]] = {}
    for text, keys in of.items():
        alike.setdefault(text.replace(f" {keys[0]}", _KEY) if len(keys) == 1 else text, []).extend(keys)
    parts = []
    for text, keys in alike.items():
        named = f" {keys[0]}" if len(keys) == 1 else f" {keys[0]} to {keys[-1]}"
        parts.append(text.replace(_KEY, named) + (f" ({len(keys)} of {len(stale)})" if len(keys) != len(stale) else ""))
    text = "; ".join(parts)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def skipped(on_hold: Mapping[str, str], busy: Collection[str], over_cap: int, never_built: int, current: int) -> str:
    """Why a tick requests nothing, in a sentence for each cause."""
    parts = [f"{key}: {why}" for key, why in list(on_hold.items())[:10]]
    if len(on_hold) > 10:
        parts.append(f"and {len(on_hold) - 10} more")
    if busy:
        parts.append(f"{plural(len(busy), 'stale partition')} in runs that are queued or running")
    if over_cap:
        parts.append(f"{plural(over_cap, 'run')} left for the next tick")
    if not parts:
        parts.append(f"Nothing is stale; current: {plural(current, 'partition')}")
    if never_built:
        parts.append(f"{never_built} that were never built are left to a backfill, by sensors.source_changes.missing")
    return "; ".join(parts) + "."
