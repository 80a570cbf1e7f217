"""The plan: what should be, against what the ledger says was made, gives the partitions to make again, with reasons.

Pure: values in, values out. `flow.plan` gathers them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

from pip_dagster.declaration.canonical import canonical
from pip_dagster.declaration.durations import doubled
from pip_dagster.declaration.partition import Partition
from pip_dagster.ledger.changes import changes, moved_since
from pip_dagster.ledger.plan_values import (
    Attempt,
    Case,
    Due,
    Held,
    Kind,
    Known,
    Plan,
    Policy,
    Reason,
    Say,
    Wanted,
)
from pip_dagster.ledger.record import inputs_digest

__all__ = ["Attempt", "Due", "Held", "Kind", "Known", "Plan", "Policy", "Reason", "Wanted", "plan"]


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
        found = _judge(
            Case(partition, len(ordered) - place, wanted, known.get(partition.key, Known()), policy, now, say)
        )
        if isinstance(found, Due):
            due.append(found)
        elif isinstance(found, Held):
            held.append(found)
        else:
            current += 1
    return Plan(pipeline, tuple(due), tuple(held), current)


def _judge(case: Case) -> Due | Held | None:
    partition, wanted, known = case.partition, case.wanted, case.known
    asks, tells = changes(case)
    last, live = known.last, known.live
    digest = _digest(case)
    # A rollback since then is the newer word on what is live, and nothing is left to try.
    broke = last is not None and last.status != "scored" and not (known.live_since and known.live_since > last.made_at)
    if last and broke and last.inputs_digest == _inputs(partition, wanted):
        if last.status == "blocked":
            return Held(partition, (Reason("blocked", f"blocked: {last.reason}"), *tells))
        if asks:
            return _again(case, last, digest)
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
    if not known.live or not known.deliberate or moved_since(known, wanted):
        return False
    return known.as_known or known.live.manifest_digest != wanted.manifest_digest


def _again(case: Case, last: Attempt, digest: str) -> Due | Held:
    """A failure with the same inputs: tried again so many times, each time after a longer wait."""
    partition, failures, reruns = case.partition, case.known.failures, case.policy.reruns
    if failures >= reruns.attempts:
        text = f"failed {failures} of {reruns.attempts} times, not tried again before something changes: {last.reason}"
        return Held(partition, (Reason("failed", text),))
    after = last.made_at + doubled(reruns.back_off, failures - 1)
    attempt = failures + 1
    text = f"failed, attempt {attempt} of {reruns.attempts}"
    if case.now < after:
        return Held(partition, (Reason("failed", f"{text} from {after:%Y-%m-%d %H:%M:%S %Z}: {last.reason}"),))
    return Due(partition, (Reason("failed", text),), attempt, digest)


def _inputs(partition: Partition, wanted: Wanted) -> str:
    sources = canonical(wanted.sources[partition.key])
    return inputs_digest(sources, wanted.sql_digest, wanted.code_digest, wanted.manifest_digest)


def _digest(case: Case) -> str:
    content = "\n".join((_inputs(case.partition, case.wanted), str(case.provisional), *case.known.entries))
    return hashlib.sha256(content.encode()).hexdigest()
