"""Monitoring after a run: every kind of finding for the partitions that were scored, and the alarms that follow.

What monitoring cannot do never fails its caller; it is returned as a fault.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from pip_dagster.declaration.grid import closed_partitions, partition_named
from pip_dagster.errors import NoWarehouseError, PipelineError, WarehouseLockedError
from pip_dagster.ledger.alarms import AlarmEntry, alarm_states, insert_alarms, insert_marks, marks_of
from pip_dagster.monitoring.delivery_lag import collect_delivery
from pip_dagster.monitoring.drift_findings import drift_findings
from pip_dagster.monitoring.estimates import estimates_after_scoring
from pip_dagster.monitoring.estimating import applies
from pip_dagster.monitoring.finding import Event, Finding
from pip_dagster.monitoring.freshness import collect_freshness
from pip_dagster.monitoring.operations import collect_operations
from pip_dagster.monitoring.performance import performance_findings
from pip_dagster.monitoring.states import AlarmChange, Judging, KnownAlarms, advance, retired
from pip_dagster.quoted import said
from pip_dagster.registry.choose import registry_of
from pip_dagster.registry.store import whoami
from pip_dagster.warehouse.access import reading, writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.interrupts import raise_if_interrupted
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion

LOG = logging.getLogger("pip_dagster")

Collector = Callable[["DuckDBPyConnection", "Pipeline", "ModelVersion", Sequence[str]], list[Finding]]
ByClock = Callable[["DuckDBPyConnection", "Pipeline"], list[Finding]]


def _performance(con: DuckDBPyConnection, pipeline: Pipeline, *_: object) -> list[Finding]:
    """What counts now because its labels are old enough, although none arrived."""
    return performance_findings(con, pipeline)


# Findings of partitions that were just scored. No warehouse is open; each opens it for as long as it reads.
COLLECTORS: dict[Event, Collector] = {
    "drift": drift_findings,
    "performance": _performance,
    "estimate": estimates_after_scoring,
    "operations": collect_operations,
}
# Findings that time alone can change; they are collected by each tick, and by `pip-dagster alarms --deliver`.
BY_CLOCK: dict[Event, ByClock] = {"freshness": collect_freshness, "delivery": collect_delivery}

# The newest partitions of a run that are judged, and the newest live ones that a killed process may have left.
_MOST, _MISSED = 31, 7
# While the newest live partition is not among so many that closed last, the pipeline is catching up.
_RECENT = 7
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Watched:
    """What was found of some partitions; `faults`: event → why it could not be judged.

    `busy`: a fault is that another process had locked the warehouse.
    """

    findings: tuple[Finding, ...]
    faults: Mapping[str, str]
    busy: bool = False

    def of(self, event: Event) -> list[Finding]:
        """The findings of one kind."""
        return [each for each in self.findings if each.event == event]


def watch(con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, partitions: Sequence[str]) -> Watched:
    """Judge partitions that a version scored, the newest of them, and store the alarms. `con` is a workspace.

    Newer live ones that no process has judged, since it was killed, are judged with them.
    """
    live, after = _newest(con, pipeline)
    wanted = {*partitions, *(key for key in live if _started(pipeline, key) > after)}
    newest = sorted(wanted, key=lambda key: _started(pipeline, key))[-_MOST:]
    found = collect(con, pipeline, version, newest)
    return _stored(con, pipeline, found, next(iter(live), None))


def watch_scored(pipeline: Pipeline, number: int | None, partitions: Sequence[str] = ()) -> Watched:
    """The same by a version's number; by the one that the alias names where there is none.

    Without monitoring, alarms that were found while it was declared are resolved.
    """
    scoring = pipeline.spec.scoring
    if pipeline.spec.monitoring is None:
        return watch_findings(pipeline, ())
    try:
        version = registry_of(pipeline.project, scoring).get(scoring.model_name, number or scoring.alias)
    except PipelineError as error:
        LOG.warning("%s: monitoring: %s", pipeline.spec.name, error)
        return Watched((), {"model": str(error)})
    with workspace(threads=1) as con:
        return watch(con, pipeline, version, partitions)


def newest_live(pipeline: Pipeline) -> str | None:
    """The id of the newest partition's live scoring: when it changes, there may be something to judge."""
    with (
        suppress(NoWarehouseError),
        workspace(threads=1) as con,
        reading(con, pipeline.project, purpose=f"{pipeline.spec.name}: reading what is live"),
    ):
        return next((scoring for _, scoring in _live(con, pipeline, 1)), None)
    return None


def _live(con: DuckDBPyConnection, pipeline: Pipeline, most: int) -> list[tuple[str, str]]:
    """The newest live partitions with their scorings, the newest first."""
    sql = (
        "SELECT partition_key, scoring_id FROM ledger.partitions WHERE pipeline = $p AND is_live "
        f"ORDER BY partition_start DESC LIMIT {most}"
    )
    return con.execute(sql, {"p": pipeline.spec.name}).fetchall()


def collect(con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, partitions: Sequence[str]) -> Watched:
    """Every kind of finding; one that cannot be judged does not keep the others from it."""
    return _collected({event: partial(of, con, pipeline, version, partitions) for event, of in COLLECTORS.items()})


def watch_clock(pipeline: Pipeline) -> Watched:
    """Judge what time alone can change, such as a partition that is late, and store the alarms."""
    with workspace(threads=1) as con:
        found = _collected({event: partial(of, con, pipeline) for event, of in BY_CLOCK.items()})
        return _stored(con, pipeline, found)


def watch_findings(pipeline: Pipeline, findings: Sequence[Finding]) -> Watched:
    """Store the alarms that follow from findings that somebody else collected."""
    with workspace(threads=1) as con:
        return _stored(con, pipeline, Watched((*findings,), {}))


def _change(con: DuckDBPyConnection, pipeline: Pipeline, findings: Sequence[Finding], quiet: bool) -> AlarmChange:
    name = pipeline.spec.name
    known = KnownAlarms((*alarm_states(con, name),), marks_of(con, name, partial(_started, pipeline)))
    judging = Judging(name, whoami(), lambda key: _started(pipeline, key), quiet=quiet)
    change = advance(known, findings, judging)
    ended = retired(known.after(change), judging, partial(_no_longer_judged, pipeline, findings))
    return AlarmChange((*change.entries, *ended), change.marks)


def _no_longer_judged(pipeline: Pipeline, findings: Sequence[Finding], alarm: AlarmEntry) -> str:
    """Why nothing will judge an alarm again, so that it would be open for ever; empty where something will."""
    spec, event = pipeline.spec, alarm.event
    if spec.monitoring is None:
        return "monitoring is no longer declared"
    if (event in ("performance", "labels") and not pipeline.evaluates) or (
        event == "estimate" and not applies(pipeline)
    ):
        return "what it is judged by is no longer declared"
    if event == "freshness" and spec.schedule is None and spec.monitoring.freshness is None:
        return "neither a schedule nor `freshness` is declared any longer"
    if event == "delivery" and not any(each.alarm_after for each in spec.deliver.values()):
        return "no target is declared with `alarm_after` any longer"
    rules = {each.rule for each in findings if each.event == event}
    return "its rule does not judge the present version" if rules and alarm.rule not in rules else ""


def _collected(collectors: Mapping[Event, Callable[[], list[Finding]]]) -> Watched:
    found: list[Finding] = []
    faults: dict[str, str] = {}
    busy = False
    for event, collector in collectors.items():
        try:
            found += collector()
        except Exception as error:
            raise_if_interrupted(error)
            faults[event] = said(error)
            busy = busy or isinstance(error, WarehouseLockedError)
    return Watched((*found,), faults, busy)


def _stored(con: DuckDBPyConnection, pipeline: Pipeline, found: Watched, newest: str | None = None) -> Watched:
    """Store the alarms that follow; `newest` is the newest live partition, where that is known."""
    name, faults, busy = pipeline.spec.name, dict(found.faults), found.busy
    try:
        with reading(con, pipeline.project, purpose=f"{name}: reading alarms"):
            quiet = _is_behind(pipeline, newest or next((key for key, _ in _live(con, pipeline, 1)), ""))
            change = _change(con, pipeline, found.findings, quiet)
        if change.entries or change.marks:  # most evaluations change nothing, and need no turn to write
            with writing(con, pipeline.project, purpose=f"{name}: storing alarms"), transaction(con):
                change = _change(con, pipeline, found.findings, quiet)  # others may have stored some meanwhile
                insert_alarms(con, change.entries)
                insert_marks(con, name, change.marks)
    except NoWarehouseError:
        pass  # nothing was ever scored
    except Exception as error:
        raise_if_interrupted(error)
        faults["alarms"] = f"what was found is not stored as alarms: {said(error)}"
        busy = busy or isinstance(error, WarehouseLockedError)
    for event, why in faults.items():
        LOG.warning("%s: monitoring, %s: %s", name, event, why)
    return Watched(found.findings, faults, busy)


def _newest(con: DuckDBPyConnection, pipeline: Pipeline) -> tuple[list[str], datetime]:
    """The newest live partitions, and when the newest begins whose drift was judged."""
    name = pipeline.spec.name
    try:
        with reading(con, pipeline.project, purpose=f"{name}: reading what is live"):
            live, marks = _live(con, pipeline, _MISSED), marks_of(con, name, partial(_started, pipeline))
    except Exception as error:  # which is reported where the alarms cannot be stored either
        raise_if_interrupted(error)
        return [], _NEVER
    after = max((_started(pipeline, key) for (event, _), key in marks.items() if event == "drift"), default=_NEVER)
    return [key for key, _ in live], after


def _started(pipeline: Pipeline, key: str) -> datetime:
    """When a partition begins; those of a former grid come first."""
    try:
        return partition_named(pipeline.spec.partitions, key).start
    except ValueError:
        return _NEVER


def _is_behind(pipeline: Pipeline, newest_key: str) -> bool:
    """Whether the newest live partition is an old one: a backfill of the past must notify nobody."""
    declared = pipeline.spec.partitions
    try:
        newest = partition_named(declared, newest_key)
    except ValueError:  # there is none, or it is of a former grid
        return True
    from_there = declared.model_copy(update={"start": newest.start_local.replace(tzinfo=None)})
    # Not all partitions since then: of ten years, listing them took a fiftieth of a daily run.
    soon = newest.start + 2 * (_RECENT + 1 + abs(declared.end_offset)) * (newest.end - newest.start)
    return len(closed_partitions(from_there, min(soon, datetime.now(UTC)))) > _RECENT
