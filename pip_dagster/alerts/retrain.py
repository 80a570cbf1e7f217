"""The retrain hook: a command or job that is started while an alarm holds, and never twice within the cool-down.

A request is committed before anything is started. A kill in between leaves a request that was not started, and the next
call starts that one; what was started is not started again. Nothing is promoted.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.alerts import background
from pip_dagster.alerts.alarm_text import line, record
from pip_dagster.alerts.notify import alone, beside
from pip_dagster.alerts.paging import ordered
from pip_dagster.declaration.durations import doubled
from pip_dagster.declaration.retrain import Retrain
from pip_dagster.errors import NoWarehouseError
from pip_dagster.ledger.alarms import AlarmEntry, alarm_states, outlived
from pip_dagster.ledger.record import new_id
from pip_dagster.ledger.retrains import RetrainEntry, Retraining, insert_retrains, retrains_of
from pip_dagster.ledger.silences import Silenced, silence_of, silences_of
from pip_dagster.registry.store import whoami
from pip_dagster.warehouse.access import reading, writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.reruns import Reruns

# What became of a job's run: its state and id, None where Dagster has no such run.
OfRun = Callable[[str], tuple[str, str] | None]


@dataclass
class Retrained:
    """What a call did, in sentences; why nothing was started although an alarm holds; the runs of jobs to launch."""

    said: list[str] = field(default_factory=list)
    held: str = ""
    jobs: list[RetrainEntry] = field(default_factory=list)


def retrain(pipeline: Pipeline, *, now: datetime | None = None, of_run: OfRun | None = None) -> Retrained:
    """Note what became of earlier retrainings, and start one if that is due.

    `of_run` is given by who can launch a job; without it, a declared job is not started.

    Raises:
        WarehouseError: the warehouse cannot be written now.
        WarehouseLockedError: another process does the same.
    """
    done, declared = Retrained(), pipeline.spec.monitoring and pipeline.spec.monitoring.retrain
    if not declared:
        return done
    if declared.job and of_run is None:
        done.held = f"{declared.target} is started by Dagster's daemon alone"
        return done
    at = now or datetime.now(UTC)
    with alone(pipeline, "retrain"):
        try:
            with (
                workspace(threads=1) as con,
                reading(con, pipeline.project, purpose=f"{pipeline.spec.name}: retraining"),
            ):
                found = _decide(con, pipeline, declared, at, of_run)
        except NoWarehouseError:
            return done
        done.held = found.held
        if found.entries:
            with _changing(pipeline) as con:
                found = _decide(con, pipeline, declared, at, of_run)
                insert_retrains(con, found.entries)
        done.said += [f"{each.pipeline}: {each.retrain_id} has {each.state}." for each in found.settled]
        if declared.job:
            done.jobs += found.to_start
        else:
            for each in found.to_start:
                _start(pipeline, declared, each, done)
    return done


def due_for(
    declared: Retrain, alarms: Sequence[AlarmEntry], silences: Sequence[Silenced], now: datetime
) -> list[AlarmEntry]:
    """The alarms that start it: those that hold, that nobody silenced, of the declared events or rules."""
    return ordered(
        [
            each
            for each in alarms
            if each.is_open
            and each.severity == "alarm"
            and not each.quiet
            and (each.event in declared.when or each.rule in declared.when)
            and silence_of(silences, each, now) is None
        ]
    )


def may_start(
    declared: Retrain, reruns: Reruns, alarms: Sequence[AlarmEntry], earlier: Sequence[Retraining], now: datetime
) -> int | str:
    """The number of the attempt that may start now, or why none may."""
    ids = {each.alarm_id for each in alarms}
    mine = [each for each in earlier if ids & {*each.now.alarm_ids}]
    # A clock that was ahead requested the others: how long ago that was, nobody knows.
    last = next((each for each in reversed(earlier) if not clock.is_ahead(each.requested_at, now)), None)
    if last and last.now.state != "failed" and now < last.requested_at + declared.cool_down:
        return f"cooling down until {last.requested_at + declared.cool_down:%Y-%m-%d %H:%M} UTC"
    if len(mine) >= declared.attempts:
        return f"{len(mine)} attempts of {declared.attempts} while these alarms hold"
    failed = [each for each in mine if each.now.state == "failed"]
    wait = doubled(reruns.back_off, max(0, len(failed) - 1))
    ended = last.now.made_at if last and last.now.state == "failed" else None
    if ended and not clock.is_ahead(ended, now) and now < ended + wait:
        return "the last one failed a moment ago"
    return len(mine) + 1


@dataclass
class _Decided:
    """The rows to store: what became of earlier ones, and a new request. `held`: why there is none."""

    settled: list[RetrainEntry] = field(default_factory=list)
    requested: list[RetrainEntry] = field(default_factory=list)
    to_start: list[RetrainEntry] = field(default_factory=list)
    held: str = ""

    @property
    def entries(self) -> list[RetrainEntry]:
        return [*self.settled, *self.requested]


def _decide(
    con: DuckDBPyConnection, pipeline: Pipeline, declared: Retrain, now: datetime, of_run: OfRun | None
) -> _Decided:
    name, found = pipeline.spec.name, _Decided()
    earlier = []
    for each in retrains_of(con, name):
        after = None if each.is_over else _outcome(pipeline, each.now, of_run)
        found.settled += [after] if after else []
        earlier.append(Retraining(each.requested_at, after or each.now))
    found.to_start = [each.now for each in earlier if each.now.state == "requested" and _is_mine(each.now, of_run)]
    known = alarm_states(con, name)
    former = outlived(con, known)  # of a version that has been replaced, perhaps by the retraining
    present = [each for each in known if each.alarm_id not in former]
    alarms = due_for(declared, present, silences_of(con, name), now)
    if found.to_start or not alarms:
        return found
    running = [each.now for each in earlier if each.now.state == "started" and _is_mine(each.now, of_run)]
    attempt = may_start(declared, pipeline.spec.reruns, alarms, earlier, now)
    if running or isinstance(attempt, str):
        found.held = f"{running[0].retrain_id} is still running" if running else str(attempt)
        return found
    entry = RetrainEntry(
        retrain_id=f"retrain-{new_id()}",
        pipeline=name,
        state="requested",
        alarm_ids=[each.alarm_id for each in alarms],
        attempt=attempt,
        target=declared.target,
        host=socket.gethostname(),
        made_at=clock.wall(),
        made_by=whoami(),
    )
    found.requested = found.to_start = [entry]
    return found


def _is_mine(entry: RetrainEntry, of_run: OfRun | None) -> bool:
    return of_run is not None or entry.host == socket.gethostname()


def _outcome(pipeline: Pipeline, entry: RetrainEntry, of_run: OfRun | None) -> RetrainEntry | None:
    """The row for what became of it, None where nothing did."""
    if entry.target.startswith("job "):
        run = of_run(entry.retrain_id) if of_run else None
        if run is None or (run[0] == "started" and entry.state == "started"):
            return None
        state, run_id = run
        return entry.become(state, run_id=run_id)  # type: ignore[arg-type]
    if entry.host != socket.gethostname():
        return None
    found = background.outcome(folder_of(pipeline, entry))
    if found.state == "ended":
        return entry.become("succeeded" if found.exit_code == 0 else "failed", exit_code=found.exit_code)
    if found.state == "killed":
        return entry.become("failed")
    return entry.become("started") if found.state == "running" and entry.state == "requested" else None


def _start(pipeline: Pipeline, declared: Retrain, entry: RetrainEntry, done: Retrained) -> None:
    folder = folder_of(pipeline, entry)
    try:
        if not (folder / background.INPUT).exists():
            _write_input(pipeline, entry, folder / background.INPUT)
        background.start(folder, declared.command, cwd=pipeline.project.root)
        after, why = entry.become("started"), f"{entry.target}, attempt {entry.attempt}"
    except OSError as error:
        after, why = entry.become("failed"), str(error)
    with _changing(pipeline) as con:
        insert_retrains(con, [after])
    done.said.append(f"{entry.pipeline}: {entry.retrain_id} has {after.state}: {why}.")


def _write_input(pipeline: Pipeline, entry: RetrainEntry, path: Path) -> None:
    with workspace(threads=1) as con, reading(con, pipeline.project, purpose=f"{entry.pipeline}: retraining"):
        alarms = [each for each in alarm_states(con, entry.pipeline) if each.alarm_id in entry.alarm_ids]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_content(entry, ordered(alarms)), encoding="utf-8")


@contextmanager
def _changing(pipeline: Pipeline) -> Iterator[DuckDBPyConnection]:
    with (
        workspace(threads=1) as con,
        writing(con, pipeline.project, purpose=f"{pipeline.spec.name}: retraining", publish=False),
        transaction(con),
    ):
        yield con


def folder_of(pipeline: Pipeline, entry: RetrainEntry) -> Path:
    """Where a command's input, output and exit code are."""
    return beside(pipeline, f"{pipeline.spec.name}.retrains") / entry.retrain_id


def _content(entry: RetrainEntry, alarms: Sequence[AlarmEntry]) -> str:
    title = f"{entry.pipeline}: retraining, attempt {entry.attempt}"
    content = {
        "kind": "retrain",
        "pipeline": entry.pipeline,
        "title": title,
        "text": "\n".join([title, *(f"- {line(each)}" for each in alarms)]),
        "retrain_id": entry.retrain_id,
        "attempt": entry.attempt,
        "alarms": [record(each) for each in alarms],
        "at": entry.made_at.isoformat(timespec="seconds"),
    }
    return json.dumps(content, ensure_ascii=False)
