"""The plan: what should be, against what the ledger says was made, gives the partitions to make again, with reasons.

Pure: values in, values out. `flow.plan` gathers them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pip_dagster.flow.partition import Partition
from pip_dagster.ledger.record import canonical, inputs_digest
from pip_dagster.spec_reruns import IgnoreAfter, Reach, Reruns

Kind = Literal[
    "missing",
    "source_changed",
    "features_changed",
    "declaration_changed",
    "model_promoted",
    "provisional",
    "blocked",
    "failed",
]
Digests = Mapping[str, Mapping[str, object]]  # source → its rows and digest


@dataclass(frozen=True)
class Reason:
    """Why a partition is due, or is not although something changed; `text` is for people."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Due:
    """A partition to make again.

    `attempt` counts from 1 with the same inputs. `wanted` is a digest of all that the partition should be made from and
    of the ledger's entries that this would replace: sources that change and change back are asked for each time.
    """

    partition: Partition
    reasons: tuple[Reason, ...]
    attempt: int
    wanted: str


@dataclass(frozen=True)
class Held:
    """A partition with something to tell that is not to be made again, or not yet."""

    partition: Partition
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Plan:
    """Partitions in order of time; `current` counts those with nothing to tell."""

    pipeline: str
    due: tuple[Due, ...]
    held: tuple[Held, ...]
    current: int


@dataclass(frozen=True)
class Wanted:
    """What all partitions should be made from. `sources`: partition key → source → rows and digest.

    `promoted_at`: when the alias last moved; None where it never did.
    """

    sources: Mapping[str, Digests]
    sql_digest: str
    code_digest: str
    manifest_digest: str
    model_version: int
    promoted_at: datetime | None = None


@dataclass(frozen=True)
class Attempt:
    """A row of `ledger.scorings`, as far as a plan needs it."""

    status: Literal["scored", "blocked", "failed"]
    reason: str | None
    code_digest: str
    manifest_digest: str | None
    model_version: int | None
    sources: Digests | None
    made_at: datetime
    feature_digest: str | None = None
    inputs_digest: str | None = None
    provisional: bool = False


@dataclass(frozen=True)
class Known:
    """What the ledger says of a partition.

    `sources`, `sql_digest`, `feature_digest`, `read_at`: of its newest extraction. `last`: the newest attempt at
    scoring it. `failures`: how many attempts in a row failed like the last one. `live`, `live_since`: the scoring that
    is live. `deliberate`: a person made it live, by a rollback or by asking for that version; `as_known`: from what
    could be known then. `entries`: the ids of all these.
    """

    sources: Digests | None = None
    sql_digest: str | None = None
    feature_digest: str | None = None
    read_at: datetime | None = None
    last: Attempt | None = None
    failures: int = 0
    live: Attempt | None = None
    live_since: datetime | None = None
    deliberate: bool = False
    as_known: bool = False
    entries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Policy:
    """What the declaration says about reruns. `late`: source → what a change after the partition was made does."""

    reruns: Reruns = field(default_factory=Reruns)
    late: Mapping[str, Literal["rerun", "report"] | IgnoreAfter] = field(default_factory=dict)
    is_provisional: Callable[[datetime, datetime], bool] = lambda end, at: False


Say = Callable[[str, Partition, Known], str]  # which source changed, and where: for people


def plan(
    pipeline: str,
    partitions: Sequence[Partition],
    wanted: Wanted,
    known: Mapping[str, Known],
    policy: Policy,
    now: datetime,
    say: Say = lambda source, partition, known: source,
) -> Plan:
    """The partitions that should be made again, and why."""
    ordered = sorted(partitions, key=lambda partition: partition.start)
    due: list[Due] = []
    held: list[Held] = []
    current = 0
    for place, partition in enumerate(ordered):
        from_end = len(ordered) - place  # 1 for the newest
        found = _judge(partition, from_end, wanted, known.get(partition.key, Known()), policy, now, say)
        if isinstance(found, Due):
            due.append(found)
        elif isinstance(found, Held):
            held.append(found)
        else:
            current += 1
    return Plan(pipeline, tuple(due), tuple(held), current)


def _judge(
    partition: Partition, from_end: int, wanted: Wanted, known: Known, policy: Policy, now: datetime, say: Say
) -> Due | Held | None:
    provisional = policy.is_provisional(partition.end, now)
    asks, tells = _changes(partition, from_end, wanted, known, policy, now, say, provisional)
    last, live = known.last, known.live
    digest = _digest(partition, wanted, known, provisional)
    # A rollback since then is the newer word on what is live, and nothing is left to try.
    broke = last is not None and last.status != "scored" and not (known.live_since and known.live_since > last.made_at)
    if last and broke and last.inputs_digest == _inputs(partition, wanted):
        if last.status == "blocked":
            return Held(partition, (Reason("blocked", f"blocked: {last.reason}"), *tells))
        if asks:
            return _again(partition, last, known.failures, policy.reruns, now, digest)
    if not asks:
        return Held(partition, tells) if tells else None
    if live and _is_kept(known, wanted):
        why = f"kept: v{live.model_version} is live by request" + (" as known then" if known.as_known else "")
        return Held(partition, (*(Reason(ask.kind, f"{ask.text}; {why}") for ask in asks), *tells))
    if last and broke:
        changed = "source since corrected" if any(ask.kind == "source_changed" for ask in asks) else "since changed"
        kind: Kind = "blocked" if last.status == "blocked" else "failed"
        asks = (Reason(kind, f"{kind}, {changed}"), *asks)
    return Due(partition, asks, 1, digest)


def _is_kept(known: Known, wanted: Wanted) -> bool:
    """Whether a person decided what is live, and no later promotion says otherwise: a rerun would undo it."""
    if not known.live or not known.deliberate or _moved_since(known, wanted):
        return False
    return known.as_known or known.live.manifest_digest != wanted.manifest_digest


def _moved_since(known: Known, wanted: Wanted) -> bool:
    return bool(wanted.promoted_at and known.live_since and wanted.promoted_at > known.live_since)


def _again(
    partition: Partition, last: Attempt, failures: int, reruns: Reruns, now: datetime, digest: str
) -> Due | Held:
    """A failure with the same inputs: tried again so many times, each time after a longer wait."""
    if failures >= reruns.attempts:
        text = f"failed {failures} of {reruns.attempts} times, not tried again before something changes: {last.reason}"
        return Held(partition, (Reason("failed", text),))
    after = last.made_at + reruns.back_off * 2 ** (failures - 1)
    attempt = failures + 1
    text = f"failed, attempt {attempt} of {reruns.attempts}"
    if now < after:
        return Held(partition, (Reason("failed", f"{text} from {after:%Y-%m-%d %H:%M:%S %Z}: {last.reason}"),))
    return Due(partition, (Reason("failed", text),), attempt, digest)


def _changes(
    partition: Partition,
    from_end: int,
    wanted: Wanted,
    known: Known,
    policy: Policy,
    now: datetime,
    say: Say,
    provisional: bool,
) -> tuple[tuple[Reason, ...], tuple[Reason, ...]]:
    """What makes the partition due, and what is told only."""
    last, live = known.last, known.live
    asks: list[Reason] = []
    tells: list[Reason] = []
    if not live and (last is None or last.status == "scored"):
        asks.append(
            Reason("missing", "missing" if known.sources is None else "missing: features are there, not scored")
        )
        return tuple(asks), ()
    # Without a live scoring what was tried last says what was read.
    read = known.sources if live or known.sources is not None else last.sources if last else None
    for source, held in wanted.sources[partition.key].items():
        was = (read or {}).get(source)
        if read is None or (was and was.get("digest") == held.get("digest")):
            continue
        reason = Reason("source_changed", f"source changed: {say(source, partition, known)}{_rows(was, held)}")
        late = policy.late.get(source, "rerun")
        if late == "report" and live:
            tells.append(Reason("source_changed", f"{reason.text}; reported only, by late_data"))
        elif isinstance(late, IgnoreAfter) and live and now > partition.end + late.ignore_after:
            days = late.ignore_after
            tells.append(Reason("source_changed", f"{reason.text}; more than {_say(days)} after its end, ignored"))
        else:
            asks.append(reason)
    reached = _reaches(policy.reruns.declaration, partition, from_end)
    if known.sql_digest is not None and known.sql_digest != wanted.sql_digest:
        (asks if reached else tells).append(Reason("features_changed", "features changed"))
    if not live:
        if not asks:
            asks.append(Reason("missing", "missing: it was tried, and what it is made from has changed since"))
        return tuple(asks), tuple(tells)
    if not asks and live.feature_digest != known.feature_digest and not known.as_known:
        at = f" of {known.read_at:%Y-%m-%d %H:%M:%S %Z}" if known.read_at else ""
        asks.append(Reason("features_changed", f"features changed: those{at} are stored and not scored yet"))
    if wanted.code_digest not in _declared(known):
        (asks if reached else tells).append(Reason("declaration_changed", "declaration or expectations changed"))
    if live.manifest_digest != wanted.manifest_digest:
        text = f"model promoted v{live.model_version}→v{wanted.model_version}"
        # A rollback or a pinned version is a newer word than the alias, until the alias moves again.
        if known.deliberate and not _moved_since(known, wanted):
            tells.append(Reason("model_promoted", f"v{live.model_version} is live by request"))
        elif _reaches(policy.reruns.promotion, partition, from_end):
            asks.append(Reason("model_promoted", text))
        else:
            tells.append(Reason("model_promoted", f"{text}; not scored again, by reruns.promotion"))
    if live.provisional and not provisional:
        asks.append(Reason("provisional", "provisional: its sources are complete since"))
    return tuple(asks), tuple(tells)


def _declared(known: Known) -> set[str]:
    """The declarations that what is live may be made by without being out of date."""
    assert known.live
    # What a person put back was made by an older declaration, and they knew; only a change since then counts.
    newest = {known.last.code_digest} if known.deliberate and known.last else set()
    return {known.live.code_digest, *newest}


def _reaches(reach: Reach, partition: Partition, from_end: int) -> bool:
    if isinstance(reach, str):
        return reach == "all"
    if reach.last is not None:
        return from_end <= reach.last
    return reach.since is not None and partition.start_local.date() >= reach.since


def _rows(was: Mapping[str, object] | None, held: Mapping[str, object]) -> str:
    before, after = (int(str(each["rows"])) if each else 0 for each in (was, held))
    if was is None:
        return ""
    return f" ({after - before:+d} rows)" if after != before else " (same number of rows)"


def _say(duration: timedelta) -> str:
    return f"{duration.days} days" if not duration % timedelta(days=1) else str(duration)


def _inputs(partition: Partition, wanted: Wanted) -> str:
    sources = canonical(wanted.sources[partition.key])
    return inputs_digest(sources, wanted.sql_digest, wanted.code_digest, wanted.manifest_digest)


def _digest(partition: Partition, wanted: Wanted, known: Known, provisional: bool) -> str:
    content = "\n".join((_inputs(partition, wanted), str(provisional), *known.entries))
    return hashlib.sha256(content.encode()).hexdigest()
