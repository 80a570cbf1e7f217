"""Which arm decides about which rows of a partition, once champion and arms have scored all of them.

The champion's commit makes the whole partition its own. Here one more transaction moves the live pointer to champion
and arms together. Killed before it, the partition stays the champion's, a check says so, and the next run of it goes on
from there without scoring anything. No score is made here: a split begins, is stopped and ends by moving a pointer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.canonical import canonical
from pip_dagster.declaration.split import BUCKETS, Canary, Range, Split
from pip_dagster.errors import PartitionError
from pip_dagster.flow.canary import Stop, judge, record_stop, say_stop
from pip_dagster.flow.canary_labels import METRIC, judge_by_labels
from pip_dagster.flow.result import PartitionResult
from pip_dagster.flow.run import Run
from pip_dagster.flow.sample_ratio import sample_ratio
from pip_dagster.flow.scored_row import check_unit
from pip_dagster.flow.split_rows import count_units, other_rows, rows_without_unit
from pip_dagster.ledger import canary
from pip_dagster.ledger.arms import CHAMPION, Arm, arms_of, live_arms
from pip_dagster.ledger.checks import CheckEntry, checks_of, insert_checks, split_check
from pip_dagster.ledger.live import live_change, make_live
from pip_dagster.ledger.record import ScoringEntry
from pip_dagster.plural import plural
from pip_dagster.quoted import said
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.interrupts import raise_if_interrupted
from pip_dagster.warehouse.transaction import transaction
from pip_dagster.warehouse.windows import in_windows

if TYPE_CHECKING:
    from pip_dagster.flow.model import ScoringModel
    from pip_dagster.registry.manifest import Manifest


# Name, whether it is passed (None: not evaluated) and what was observed.
_Check = tuple[str, bool | None, Any]


@dataclass
class _Decision:
    """What is to be live: ranges with the scoring of their arm, and the verdicts on the arms that get none."""

    live: list[tuple[Range, str]] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    checks: list[_Check] = field(default_factory=list)


def split(run: Run, model: ScoringModel, results: Iterable[PartitionResult]) -> Iterator[PartitionResult]:
    """The results with the arms that are live now, decided for each partition in a transaction of its own.

    Where nothing is declared, a partition that was split is the champion's again. Nothing that goes wrong here leaves:
    the champion's partitions are committed and stay; progress and the ledger report it.
    """
    con, pipeline, listed = run.con, run.pipeline, list(results)
    scored = [each for each in listed if each.scoring and not each.error]
    name = pipeline.spec.name
    if not pipeline.spec.scoring.experiment:  # then what was scored just now has no arms
        scored = [each for each in scored if each.reused]
    if scored and not pipeline.spec.scoring.experiment:
        with writing(con, pipeline.project, purpose=f"{name}: reading the ledger", publish=False):
            parted = live_arms(con, name, [each.partition.key for each in scored])
        scored = [each for each in scored if each.partition.key in parted]
    done: dict[str, PartitionResult] = {}
    by_labels: Sequence[_Check] = ()

    def undecided(result: PartitionResult, error: Exception) -> PartitionResult:
        text = f"not decided: {said(error)}"
        run.progress(f"{name}, partition {result.partition.key}: its arms are {text}")
        check = split_check(name, result.partition.key, "", "arms", passed=False, observed=text)
        return replace(result, checks=(*result.checks, check))

    def work(result: PartitionResult) -> None:
        try:
            done[result.partition.key] = _split(run, model.version.manifest, result, by_labels)
        except Exception as error:
            raise_if_interrupted(error)
            # Whatever else it is, the champion's partition is committed and stays.
            done[result.partition.key] = undecided(result, error)

    try:
        if scored:
            by_labels = judge_by_labels(run, model.version.manifest, scored)
            in_windows(con, pipeline.project, scored, work, purpose=f"{name}: deciding arms")
    except Exception as error:
        raise_if_interrupted(error)
        done |= {r.partition.key: undecided(r, error) for r in scored if r.partition.key not in done}
    for result in listed:
        yield done.get(result.partition.key, result)


def _split(run: Run, manifest: Manifest, result: PartitionResult, by_labels: Sequence[_Check]) -> PartitionResult:
    """Decide one partition; the warehouse is the current catalog, locked by this process."""
    con, spec = run.con, run.pipeline.spec
    champion, experiment = result.scoring, spec.scoring.experiment
    assert champion
    name, key = champion.pipeline, champion.partition_key
    live = live_change(con, name, key)
    if live is None or live.scoring_id != champion.scoring_id:
        raise PartitionError("another process changed what is live since this was scored; nothing was changed")
    change_id, current = live.change_id, arms_of(con, [live.change_id]).get(live.change_id, ())
    if experiment is None:
        with transaction(con):
            make_live(con, [champion], run.info, "no split is declared any more")
        return result
    unit = canonical(check_unit(spec, result.columns))
    decision = _decide(run, manifest, experiment, result, current, unit)
    wanted = _ranges(experiment, champion, decision, unit)
    decided = (_describe(experiment, wanted, run.info.live_why), wanted)
    with transaction(con):
        if wanted != current:
            (change_id,) = make_live(con, [champion], run.info, *decided, experiment=experiment.label)
        for stop in decision.stops:
            record_stop(run, key, stop)
        verdicts = [*decision.checks, *by_labels]
        if wanted:
            verdicts.append(sample_ratio(count_units(con, champion, wanted), _buckets(wanted)))
        known = checks_of(con, [change_id]).get(change_id, ())
        entries = _entries(name, key, change_id, verdicts)
        if list(map(_verdict, known)) != list(map(_verdict, entries)):
            if wanted == current:  # the new verdicts are a change of their own in the audit
                (change_id,) = make_live(con, [champion], run.info, *decided, experiment=experiment.label)
                entries = _entries(name, key, change_id, verdicts)
            insert_checks(con, entries)
    return replace(result, live_arms=wanted, checks=(*result.checks, *entries))


def _decide(
    run: Run,
    manifest: Manifest,
    experiment: Split,
    result: PartitionResult,
    current: Sequence[Arm],
    unit: str,
) -> _Decision:
    """What each arm may have of the partition; nothing is written."""
    con, pipeline, champion, decision = run.con, run.pipeline, result.scoring, _Decision()
    assert champion
    without_unit = rows_without_unit(con, pipeline, champion)
    for part in experiment.ranges:
        entry, refusal = result.arms.get(part.arm), result.refused.get(part.arm)
        reason = refusal.text if refusal else None
        had = _had(current, part, experiment, unit)
        if entry is None:
            reason = reason or f"{part.arm} has not scored this partition"
        elif without_unit:
            named = ", ".join(pipeline.spec.unit)
            reason = f"{without_unit} of {champion.rows_scored} rows have no {named}: they belong to no arm"
        elif entry.status != "scored":
            reason = f"v{entry.model_version} {entry.status}: {entry.reason}"
        elif other := other_rows(con, pipeline, champion, entry):
            reason = (
                f"{plural(other, 'row')} scored by only one of v{champion.model_version} and v{entry.model_version}"
            )
        elif isinstance(experiment, Canary):
            stop = canary.stopped(con, champion.pipeline, part.arm, (entry.model_name, entry.model_version or 0))
            # A rerun must not take units from an arm that handed out their rows before it was stopped elsewhere.
            if stop and had != entry.scoring_id:
                reason = stop.text
            elif not stop:
                reason = _gate(run, manifest, part.arm, champion, entry, decision)
        if reason is None and entry is not None:
            decision.live.append((part, entry.scoring_id))
            share = f"v{entry.model_version} decides about {(part.high - part.low) * 100 / BUCKETS:g}%"
            decision.checks.append((f"arm {part.arm}", True, share))
        elif had and refusal and refusal.transient:
            # An attempt that came to nothing leaves what is stored, and live, as it was.
            decision.live.append((part, had))
            decision.checks.append((f"arm {part.arm}", False, f"{reason}\nIt stays live by what it scored before."))
        else:
            decision.checks.append((f"arm {part.arm}", False, reason))
    return decision


def _had(arms: Sequence[Arm], part: Range, experiment: Split, unit: str) -> str | None:
    """The scoring by which an arm has these very buckets already."""
    wanted = (part.arm, part.low, part.high, experiment.salt, unit)
    return next((a.scoring_id for a in arms if (a.arm, a.low, a.high, a.salt, a.unit) == wanted), None)


def _gate(
    run: Run, manifest: Manifest, arm: str, champion: ScoringEntry, entry: ScoringEntry, decision: _Decision
) -> str | None:
    """Why a canary must not be live for this partition, or None; its figures are added to the decision."""
    verdicts = judge(run.con, run.pipeline, manifest, champion, entry)
    for verdict in verdicts:
        decision.checks.append((f"{verdict.name} {arm}", verdict.passed, verdict.text))
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if not failed:
        return None
    stop = say_stop(arm, entry, failed)
    decision.stops.append(stop)
    return f"{arm} (v{entry.model_version}) is stopped: {stop.why}"


def _ranges(experiment: Split, champion: ScoringEntry, decision: _Decision, unit: str) -> tuple[Arm, ...]:
    """Every bucket with its scoring: those of arms that are not live are the champion's. None where all are."""
    if not decision.live:
        return ()
    how = (experiment.kind, experiment.salt, unit)
    found: list[Arm] = []
    low = 0
    for part, scoring_id in decision.live:
        if part.low > low:
            found.append(Arm(champion.scoring_id, CHAMPION, low, part.low, *how))
        found.append(Arm(scoring_id, part.arm, part.low, part.high, *how))
        low = part.high
    if low < BUCKETS:
        found.append(Arm(champion.scoring_id, CHAMPION, low, BUCKETS, *how))
    return tuple(found)


def _buckets(arms: Iterable[Arm]) -> dict[str, int]:
    found: dict[str, int] = {}
    for arm in arms:
        found[arm.arm] = found.get(arm.arm, 0) + arm.high - arm.low
    return found


def _describe(experiment: Split, arms: Sequence[Arm], why: str) -> str:
    """Why the arms are live, for people: the run's own reason, then the shares."""
    shares = ", ".join(f"{name} {count * 100 / BUCKETS:g}%" for name, count in _buckets(arms).items())
    text = f"{experiment.label}: " + (shares or "all rows are the champion's")
    return f"{why}; {text}" if why else text


def _entries(pipeline: str, partition_key: str, change_id: str, verdicts: Sequence[_Check]) -> list[CheckEntry]:
    return [
        split_check(pipeline, partition_key, change_id, name, passed=passed, observed=observed)
        for name, passed, observed in verdicts
    ]


def _verdict(check: CheckEntry) -> tuple[str, str, str | None]:
    """What is new when it differs. How far labels have come is news of the canary, not of each of its partitions."""
    by_labels = check.expectation_id.startswith(f"{METRIC} ") and check.status == "passed"
    return check.expectation_id, check.status, None if by_labels else check.observed
