"""The plan: compares what should be with what the ledger recorded, and lists the stale partitions with reasons.

Pure: values in, values out. `flow.plan` gathers them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

from pip_dagster.declaration.durations import doubled
from pip_dagster.declaration.partition import Partition
from pip_dagster.ledger.changes import changes, moved_since
from pip_dagster.ledger.plan_values import (
    Attempt,
    Case,
    Describe,
    Kind,
    Known,
    OnHold,
    Plan,
    Policy,
    Reason,
    Stale,
    Wanted,
)
from pip_dagster.ledger.record import inputs_digest, with_share

__all__ = ["Attempt", "Kind", "Known", "OnHold", "Plan", "Policy", "Reason", "Stale", "Wanted", "plan"]


def plan(
    pipeline: str,
    partitions: Sequence[Partition],
    wanted: Wanted,
    known: Mapping[str, Known | str],
    policy: Policy,
    now: datetime,
    describe: Describe = lambda source, partition, known: source,
) -> Plan:
    """The partitions that are stale or on hold, and why. Those that `known` lacks are current.

    An older partition in place of what is known of one: it is on hold for the same reasons.
    """
    ordered = sorted(partitions, key=lambda partition: partition.start)
    stale: list[Stale] = []
    on_hold: list[OnHold] = []
    until: list[datetime] = []
    reasons: dict[str, tuple[Reason, ...]] = {}
    for place, partition in enumerate(ordered):
        of = known.get(partition.key)
        if isinstance(of, str):
            on_hold.append(OnHold(partition, reasons[of]))
        if not isinstance(of, Known):
            continue
        if of.live and of.live.provisional and (complete_at := policy.complete_at(policy.close(partition))):
            until.append(complete_at)
        found = _judge(Case(partition, len(ordered) - place, wanted, of, policy, now, describe))
        if isinstance(found, Stale):
            stale.append(found)
        elif isinstance(found, OnHold):
            on_hold.append(found)
            reasons[partition.key] = found.reasons
    until += [each.until for each in on_hold if each.until]
    current = len(ordered) - len(stale) - len(on_hold)
    return Plan(
        pipeline, tuple(stale), tuple(on_hold), current, until=min((at for at in until if at > now), default=None)
    )


def _judge(case: Case) -> Stale | OnHold | None:
    partition, wanted, known = case.partition, case.wanted, case.known
    stale, reported = changes(case)
    last, live = known.last, known.live
    digest = _digest(case)
    # A later rollback takes precedence over a failed attempt, and nothing is left to try.
    is_overtaken = bool(last and known.live_since and known.live_since > last.made_at)
    has_failed = last is not None and last.status != "scored" and not is_overtaken
    if last and has_failed and last.inputs_digest in _same_inputs(partition, wanted):
        if last.status == "blocked":
            return OnHold(partition, (Reason("blocked", f"blocked: {last.reason}"), *reported))
        if stale:
            return _retry(case, last, digest)
    if not stale:
        return OnHold(partition, reported) if reported else None
    if live and _is_kept(known, wanted):
        why = f"kept: v{live.model_version} is live by request" + (" as known" if known.as_known else "")
        return OnHold(partition, (*(Reason(each.kind, f"{each.text}; {why}") for each in stale), *reported))
    if last and has_failed:
        changed = "source since corrected" if any(each.kind == "source_changed" for each in stale) else "since changed"
        kind: Kind = "blocked" if last.status == "blocked" else "failed"
        stale = (Reason(kind, f"{kind}, {changed}"), *stale)
    return Stale(partition, stale, 1, digest)


def _is_kept(known: Known, wanted: Wanted) -> bool:
    """Whether a person decided what is live and the alias has not moved since: a rerun would undo that."""
    if not known.live or not known.deliberate or moved_since(known, wanted):
        return False
    return known.as_known or known.live.manifest_digest != wanted.manifest_digest


def _retry(case: Case, last: Attempt, digest: str) -> Stale | OnHold:
    """A failure with the same inputs: retried up to the declared number of attempts, after a wait that doubles."""
    partition, failures, reruns = case.partition, case.known.failures, case.policy.reruns
    if failures >= reruns.attempts:
        text = f"failed {failures} of {reruns.attempts} times, not retried before something changes: {last.reason}"
        return OnHold(partition, (Reason("failed", text),))
    after = last.made_at + doubled(reruns.back_off, failures - 1)
    attempt = failures + 1
    text = f"failed, attempt {attempt} of {reruns.attempts}"
    if last.made_at <= case.now < after:  # a later failure was recorded by a clock that was ahead
        why = f"{text} from {after:%Y-%m-%d %H:%M:%S %Z}: {last.reason}"
        return OnHold(partition, (Reason("failed", why),), until=after)
    return Stale(partition, (Reason("failed", text),), attempt, digest)


def _same_inputs(partition: Partition, wanted: Wanted) -> set[str]:
    """The inputs that an attempt now would record, in each form in which they are stored."""
    codes = (wanted.code_digest, with_share(wanted.code_digest, wanted.min_row_share))
    return {_inputs(partition, wanted, sql, code) for sql in wanted.sql_digests for code in codes}


def _inputs(partition: Partition, wanted: Wanted, sql_digest: str, code_digest: str) -> str:
    return inputs_digest(wanted.sources[partition.key], sql_digest, code_digest, wanted.manifest_digest)


def _digest(case: Case) -> str:
    inputs = _inputs(case.partition, case.wanted, case.wanted.sql_digest, case.wanted.code_digest)
    content = "\n".join((inputs, str(case.provisional), *case.known.entries))
    return hashlib.sha256(content.encode()).hexdigest()
