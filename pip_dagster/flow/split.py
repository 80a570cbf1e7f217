"""Which arm decides about which rows of a partition, once champion and arms have scored all of them.

The champion's commit makes the whole partition its own. Here one more transaction moves the live pointer to champion
and arms together. Killed before it, the partition stays the champion's, a check says so, and the next run of it goes on
from there without scoring anything. No score is made here: a split begins, is stopped and ends by moving a pointer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pip_dagster.errors import PartitionError
from pip_dagster.flow.canary import Stop, judge, say_stop
from pip_dagster.flow.result import PartitionResult
from pip_dagster.flow.sample_ratio import Counted, sample_ratio
from pip_dagster.flow.unit import check_unit
from pip_dagster.ledger import canary, record
from pip_dagster.ledger.arms import CHAMPION, Arm, live_arms, live_change
from pip_dagster.ledger.checks import CheckEntry, checks_of, insert_checks, split_check
from pip_dagster.ledger.record import RunInfo, ScoringEntry
from pip_dagster.spec_split import Canary, Range, Split
from pip_dagster.warehouse.buckets import BUCKETS
from pip_dagster.warehouse.connect import open_warehouse, transaction
from pip_dagster.warehouse.names import literal, quote, quote_all
from pip_dagster.warehouse.tables import predictions_select
from pip_dagster.warehouse.windows import in_windows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.flow.model import ScoringModel
    from pip_dagster.pipeline import Pipeline
    from pip_dagster.registry.manifest import Manifest


@dataclass
class _Decision:
    """What is to be live: the ranges that are an arm's; the verdicts say why another's units are the champion's."""

    live: list[tuple[Range, ScoringEntry]] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    checks: list[tuple[str, bool, Any]] = field(default_factory=list)


def split(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    model: ScoringModel,
    results: Iterable[PartitionResult],
    run: RunInfo,
    progress: Callable[[str], None],
) -> Iterator[PartitionResult]:
    """The results with the arms that are live now, decided for each partition in a transaction of its own.

    Where nothing is declared, a partition that was split is the champion's again. Nothing that goes wrong here leaves:
    the champion's partitions are committed and stay, and `progress` and the ledger tell of it.
    """
    listed = list(results)
    scored = [each for each in listed if each.scoring and not each.error]
    name = pipeline.spec.name
    if scored and not pipeline.spec.scoring.experiment:
        with open_warehouse(con, pipeline.project.warehouse, purpose=f"{name}: reading the ledger"):
            parted = live_arms(con, name, [each.partition.key for each in scored])
        scored = [each for each in scored if each.partition.key in parted]
    done: dict[str, PartitionResult] = {}

    def undecided(result: PartitionResult, error: object) -> PartitionResult:
        text = f"not decided: {error}"
        progress(f"{name}, partition {result.partition.key}: its arms are {text}")
        check = split_check(name, result.partition.key, "", "arms", passed=False, observed=text)
        return replace(result, checks=(*result.checks, check))

    def work(result: PartitionResult) -> None:
        try:
            done[result.partition.key] = _split(con, pipeline, model.version.manifest, result, run)
        except Exception as error:  # whatever it is, the champion's partition is committed and stays
            done[result.partition.key] = undecided(result, error)

    try:
        if scored:
            in_windows(con, pipeline.project, scored, work, purpose=f"{name}: deciding arms")
    except Exception as error:
        done |= {r.partition.key: undecided(r, error) for r in scored if r.partition.key not in done}
    for result in listed:
        yield done.get(result.partition.key, result)


def _split(
    con: DuckDBPyConnection, pipeline: Pipeline, manifest: Manifest, result: PartitionResult, run: RunInfo
) -> PartitionResult:
    """Decide one partition; the warehouse is the current catalog and nobody else has it."""
    champion, experiment = result.scoring, pipeline.spec.scoring.experiment
    assert champion
    name, key = champion.pipeline, champion.partition_key
    found = live_change(con, name, key)
    if found is None or found[1] != champion.scoring_id:
        raise PartitionError("what is live was changed by somebody else since it was scored; that is left alone")
    change_id, _, current = found
    if experiment is None:
        with transaction(con):
            record.make_live(con, champion, run, "no split is declared any more")
        return result
    unit = record.canonical(check_unit(pipeline.spec, result.columns))
    decision = _decide(con, pipeline, manifest, experiment, result, current)
    wanted = _ranges(experiment, champion, decision, unit)
    with transaction(con):
        if wanted != current:
            change_id = record.make_live(con, champion, run, _say(experiment, wanted), wanted)
        for stop in decision.stops:
            canary.record_event(
                con, name, stop.arm, stop.model, "stopped", stop.why, run, partition_key=key, figures=stop.figures
            )
        verdicts = list(decision.checks)
        if wanted:
            verdicts.append(sample_ratio(_count_units(con, champion, wanted), _buckets(wanted)))
        known = checks_of(con, [change_id]).get(change_id, ())
        entries = _entries(name, key, change_id, verdicts)
        if list(map(_verdict, known)) == list(map(_verdict, entries)):
            entries = list(known)
        else:
            if wanted == current:  # a decision of its own, told to the audit and published
                change_id = record.make_live(con, champion, run, _say(experiment, wanted), wanted)
                entries = _entries(name, key, change_id, verdicts)
            insert_checks(con, entries)
    return replace(result, live_arms=wanted, checks=(*result.checks, *entries))


def _decide(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    manifest: Manifest,
    experiment: Split,
    result: PartitionResult,
    current: Sequence[Arm],
) -> _Decision:
    """What each arm may have of the partition; nothing is written."""
    champion, decision = result.scoring, _Decision()
    assert champion
    without_unit = _rows_without_unit(con, pipeline, champion)
    for part in experiment.ranges:
        entry = result.arms.get(part.arm)
        reason = result.refused.get(part.arm)
        if entry is None:
            reason = reason or f"{part.arm} has not scored this partition"
        elif without_unit:
            unit = ", ".join(pipeline.spec.unit)
            reason = f"{without_unit} of {champion.rows_scored} rows have no {unit}: they belong to no arm"
        elif entry.status != "scored":
            reason = f"v{entry.model_version} {entry.status}: {entry.reason}"
        elif other := _other_rows(con, pipeline, champion, entry):
            reason = f"{other} rows are scored by one of v{champion.model_version} and v{entry.model_version} only"
        elif isinstance(experiment, Canary):
            had = any(
                (arm.arm, arm.scoring_id) == (part.arm, entry.scoring_id) and _same(arm, part, experiment)
                for arm in current
            )
            stop = canary.stopped(con, champion.pipeline, part.arm, entry.model_version or 0)
            # A rerun must not take units from an arm that handed out their rows before it was stopped elsewhere.
            if stop and not had:
                reason = stop.text
            elif not stop:
                reason = _gate(con, pipeline, manifest, experiment, part.arm, champion, entry, decision)
        if reason is None and entry is not None:
            decision.live.append((part, entry))
            reason = f"v{entry.model_version} decides about {(part.high - part.low) * 100 / BUCKETS:g}%"
            decision.checks.append((f"arm {part.arm}", True, reason))
        else:
            decision.checks.append((f"arm {part.arm}", False, reason))
    return decision


def _same(arm: Arm, part: Range, experiment: Split) -> bool:
    return (arm.low, arm.high, arm.salt) == (part.low, part.high, experiment.salt)


def _gate(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    manifest: Manifest,
    experiment: Canary,
    arm: str,
    champion: ScoringEntry,
    entry: ScoringEntry,
    decision: _Decision,
) -> str | None:
    """Why a canary must not be live for this partition, or None; its figures are added to the decision."""
    verdicts = judge(con, pipeline, experiment.gate, manifest, champion, entry)
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
    for part, entry in decision.live:
        if part.low > low:
            found.append(Arm(champion.scoring_id, CHAMPION, low, part.low, *how))
        found.append(Arm(entry.scoring_id, part.arm, part.low, part.high, *how))
        low = part.high
    if low < BUCKETS:
        found.append(Arm(champion.scoring_id, CHAMPION, low, BUCKETS, *how))
    return tuple(found)


def _rows_without_unit(con: DuckDBPyConnection, pipeline: Pipeline, champion: ScoringEntry) -> int:
    missing = " OR ".join(f"{quote(name)} IS NULL" for name in pipeline.spec.unit)
    return _count(con, f"SELECT count(*) FROM {_rows(champion)} WHERE {missing}")


def _other_rows(con: DuckDBPyConnection, pipeline: Pipeline, champion: ScoringEntry, arm: ScoringEntry) -> int:
    """Rows that one of the two has and the other has not; they would be lost, or come from nowhere.

    Both score what is admitted of the same features. Only unseen categories in quarantine depend on the champion, and an
    arm's scoring may be older than that; to join the keys takes a second a million, so it is done where it can matter.
    """
    if pipeline.spec.scoring.on_unseen_category != "quarantine":
        return abs((champion.rows_scored or 0) - (arm.rows_scored or 0))
    key = quote_all(pipeline.spec.features.key)
    a, b = f"(SELECT {key} FROM {_rows(champion)})", f"(SELECT {key} FROM {_rows(arm)})"
    return _count(
        con,
        f"SELECT (SELECT count(*) FROM {a} a ANTI JOIN {b} b USING ({key})) "
        f"+ (SELECT count(*) FROM {b} b ANTI JOIN {a} a USING ({key}))",
    )


def _rows(entry: ScoringEntry) -> str:
    table = f"{quote(entry.pipeline)}.{quote(entry.table_name or '')}"
    return f"(SELECT * FROM {table} WHERE scoring_id = {literal(entry.scoring_id)})"


def _count(con: DuckDBPyConnection, sql: str) -> int:
    row = con.execute(sql).fetchone()
    return int(row[0]) if row else 0


def _count_units(con: DuckDBPyConnection, champion: ScoringEntry, wanted: Sequence[Arm]) -> dict[str, Counted]:
    """What each arm has of a partition, as everybody will read it.

    Raises:
        PartitionError: that is not every row of the champion's once; roll back.

    """
    ids = ", ".join(sorted({literal(arm.scoring_id) for arm in wanted}))
    units = ", ".join(quote(name) for name in json.loads(wanted[0].unit))
    rows = con.execute(
        f"SELECT arm, count(*), count(DISTINCT ({units})) FROM ({predictions_select(con, champion.pipeline)}) p "
        f"WHERE partition_key = {literal(champion.partition_key)} AND scoring_id IN ({ids}) GROUP BY arm"
    ).fetchall()
    if (total := sum(row[1] for row in rows)) != champion.rows_scored:
        raise PartitionError(
            f"Pipeline {champion.pipeline}, partition {champion.partition_key}: {total} rows would be live, "
            f"{champion.rows_scored} were scored. Nothing was split; this is a defect of pip_dagster, please report it."
        )
    return {arm: Counted(count, distinct) for arm, count, distinct in rows}


def _buckets(arms: Iterable[Arm]) -> dict[str, int]:
    found: dict[str, int] = {}
    for arm in arms:
        found[arm.arm] = found.get(arm.arm, 0) + arm.high - arm.low
    return found


def _say(experiment: Split, arms: Sequence[Arm]) -> str:
    """The shares, for the ledger."""
    if not arms:
        return f"{experiment.kind} {experiment.salt!r}: all rows are the champion's"
    shares = ", ".join(f"{name} {count * 100 / BUCKETS:g}%" for name, count in _buckets(arms).items())
    return f"{experiment.kind} {experiment.salt!r}: {shares}"


def _entries(
    pipeline: str, partition_key: str, change_id: str, verdicts: Sequence[tuple[str, bool, Any]]
) -> list[CheckEntry]:
    return [
        split_check(pipeline, partition_key, change_id, name, passed=passed, observed=observed)
        for name, passed, observed in verdicts
    ]


def _verdict(check: CheckEntry) -> tuple[str, str, str | None]:
    return check.expectation_id, check.status, check.observed
