"""Changes since a partition was built: those that make it stale and those that are only reported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache

from pip_dagster.declaration.digests import EXPECTATIONS, SOURCES
from pip_dagster.declaration.reruns import IgnoreAfter, reaches
from pip_dagster.ledger.plan_values import Attempt, Case, Kind, Known, Reason, Wanted
from pip_dagster.plural import plural

_NAMED = 4  # changed parts of the declaration that a reason names

Found = tuple[bool, Reason]  # whether it makes the partition stale; otherwise it is reported


def changes(case: Case) -> tuple[tuple[Reason, ...], tuple[Reason, ...]]:
    """The reasons that make the partition stale, and those that are only reported."""
    known, live = case.known, case.known.live
    if not live and (known.last is None or known.last.status == "scored"):
        text = "missing" if known.sources is None else "missing: features are there, not scored"
        return (Reason("missing", text),), ()
    found = [*_of_sources(case), *_of_sql(case)]
    stale = [reason for is_stale, reason in found if is_stale]
    if not live:
        if not stale:
            stale = [Reason("missing", "missing: an attempt failed, and its inputs have changed since")]
    else:
        if not stale and live.feature_digest != known.feature_digest and not known.as_known:
            at = f" of {known.read_at:%Y-%m-%d %H:%M:%S %Z}" if known.read_at else ""
            text = f"features changed: those{at} are stored and not scored yet"
            stale.append(Reason("features_changed", text))
        others = [*_of_declaration(case, live), *_of_model(case, live), *_of_arms(case)]
        stale += [reason for is_stale, reason in others if is_stale]
        found += others
    return tuple(stale), tuple(reason for is_stale, reason in found if not is_stale)


def _of_sources(case: Case) -> Iterator[Found]:
    partition, known, live = case.partition, case.known, case.known.live
    # Without a live scoring the last attempt records what was read.
    read = known.sources if live or known.sources is not None else known.last.sources if known.last else None
    for source, now in json.loads(case.wanted.sources[partition.key]).items():
        was = (read or {}).get(source)
        if read is None or (was and was.get("digest") == now.get("digest")):
            continue
        text = f"source changed: {case.describe(source, partition, known)}{_rows(was, now)}"
        late = case.policy.late.get(source, "rerun")
        if late == "report" and live:
            yield False, Reason("source_changed", f"{text}; reported only, by late_data")
        elif isinstance(late, IgnoreAfter) and live and case.now > case.policy.close(partition) + late.ignore_after:
            after = _duration(late.ignore_after)
            yield False, Reason("source_changed", f"{text}; more than {after} after its close, ignored by late_data")
        else:
            yield True, Reason("source_changed", text)


def _of_sql(case: Case) -> Iterator[Found]:
    known, wanted = case.known, case.wanted
    if known.sql_digest is not None and known.sql_digest not in wanted.sql_digests:
        others = tuple(each.parts for each in wanted.otherwise)
        names = _changed_parts(known.declared_parts, wanted.feature_parts, others)
        if known.declared_parts and wanted.feature_parts and not _without_unread(names, wanted.feature_parts):
            return
        is_stale = reaches(case.policy.reruns.declaration, case.partition, case.from_end)
        for reason in _declared(known.declared_parts, wanted.feature_parts, "features_changed", "features", others):
            yield is_stale, reason


def _of_declaration(case: Case, live: Attempt) -> Iterator[Found]:
    # A person who rolls back accepts the older declaration; only a change since then counts.
    newest = case.known.last if case.known.deliberate and case.known.last else live
    if case.wanted.code_digest not in {live.code_digest, newest.code_digest}:
        is_stale = reaches(case.policy.reruns.declaration, case.partition, case.from_end)
        joint = "declaration" if newest.declared_parts else "declaration or expectations"
        for reason in _declared(newest.declared_parts, case.wanted.scoring_parts, "declaration_changed", joint):
            yield is_stale, reason


def _declared(was: str | None, now: str | None, kind: Kind, what: str, same: tuple[str, ...] = ()) -> Iterator[Reason]:
    """The changed parts of a declaration, expectations separately; only `what` if the ledger does not record parts."""
    names = _without_unread(_changed_parts(was, now, same), now)
    others = [name for name in names if not name.startswith(EXPECTATIONS)]
    expectations = [name.removeprefix(EXPECTATIONS) for name in names if name.startswith(EXPECTATIONS)]
    if others or not expectations:
        yield Reason(kind, f"{what} changed{_listed(others)}")
    if expectations:
        yield Reason("expectations_changed", f"expectations changed{_listed(expectations)}")


@lru_cache(maxsize=64)  # a plan of years compares the same two many times
def _changed_parts(was: str | None, now: str | None, others: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The names of the parts that differ, or that only one of the two has; `others`: what is as good as `now`."""
    if was is None or now is None:
        return ()
    before, after, *same = map(json.loads, (was, now, *others))
    names = before.keys() | after.keys()
    return tuple(sorted(n for n in names if before.get(n) not in (each.get(n) for each in (after, *same))))


def _without_unread(names: Sequence[str], now: str | None) -> tuple[str, ...]:
    """The changed parts without sources that are not read: older entries recorded those that only labels read, too."""
    read = json.loads(now) if now else {}
    return tuple(name for name in names if name in read or not name.startswith(SOURCES))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f": {', '.join(names[:_NAMED])}{more}" if names else ""


def _of_model(case: Case, live: Attempt) -> Iterator[Found]:
    known, wanted = case.known, case.wanted
    if live.manifest_digest != wanted.manifest_digest:
        text = f"model promoted v{live.model_version}→v{wanted.model_version}"
        # A rollback or a pinned version takes precedence over the alias until the alias moves again.
        if known.deliberate and not moved_since(known, wanted):
            yield False, Reason("model_promoted", f"v{live.model_version} is live by request")
        elif reaches(case.policy.reruns.promotion, case.partition, case.from_end):
            yield True, Reason("model_promoted", text)
        else:
            yield False, Reason("model_promoted", f"{text}; not rescored, by reruns.promotion")
    if live.provisional and not case.provisional:
        yield True, Reason("provisional", "provisional: its sources are complete now")


def _of_arms(case: Case) -> Iterator[Found]:
    """A change of the declared split moves no partition that is decided; it applies to later runs."""
    wanted, arms = case.wanted.arms, case.known.arms
    if wanted is None:
        if arms and arms.ranges:
            yield False, Reason("arms_changed", "no split is declared any more, this one is still live here")
    elif arms and arms.undecided:
        yield True, Reason("arms_undecided", f"{wanted.experiment}: not decided yet for this partition")
    elif case.known.deliberate:
        return  # a person's request includes how its rows are shared
    elif arms is None or wanted.experiment != arms.experiment:
        yield False, Reason("arms_changed", f"{wanted.experiment}: declared since, not live here")
    elif not arms.ranges <= wanted.ranges or (arms.ranges and arms.unit != wanted.unit):
        yield False, Reason("arms_changed", f"{wanted.experiment}: shares or unit changed since, not live here")


def moved_since(known: Known, wanted: Wanted) -> bool:
    """Whether the alias moved after the partition's live scoring became live."""
    return bool(wanted.promoted_at and known.live_since and wanted.promoted_at > known.live_since)


def _rows(was: Mapping[str, object] | None, now: Mapping[str, object]) -> str:
    before, after = (int(str(each["rows"])) if each else 0 for each in (was, now))
    if was is None:
        return ""
    more = after - before
    return f" ({more:+d} {'row' if abs(more) == 1 else 'rows'})" if more else " (same number of rows)"


def _duration(duration: timedelta) -> str:
    return plural(duration.days, "day") if not duration % timedelta(days=1) else str(duration)
