"""Whether the newest closed partition is live in time, from the ledger and the declaration alone."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from pip_dagster import clock
from pip_dagster.declaration.every import LONGEST
from pip_dagster.errors import NoWarehouseError
from pip_dagster.monitoring.closing import closed_since, expected_by
from pip_dagster.monitoring.finding import Finding, FindingState
from pip_dagster.plural import plural
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.access import reading

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.spec import PipelineSpec
    from pip_dagster.flow.closed import Closed

_NEWEST = """
  SELECT partition_key, scoring_id, epoch_us(partition_end) FROM ledger.partitions
  WHERE pipeline = {pipeline} AND is_live ORDER BY partition_end DESC LIMIT 1
"""
_ATTEMPT = """
  SELECT partition_key, status, reason FROM ledger.partitions
  WHERE pipeline = {pipeline} AND role = 'champion' AND partition_start >= {since}::TIMESTAMPTZ
  ORDER BY scoring_id DESC LIMIT 1
"""


class Newest(NamedTuple):
    """The newest live partition, and where it ends."""

    partition_key: str
    scoring_id: str
    end: datetime


class Lateness(NamedTuple):
    """The state of a pipeline's freshness.

    `missing` are the partitions after the newest live one that have closed. `since` is when the oldest of them closed,
    `fail` when it was late: None where nothing is late yet or can be.
    """

    state: FindingState
    missing: tuple[Closed, ...]
    late: tuple[Closed, ...]
    fail: datetime | None

    @property
    def oldest(self) -> Closed | None:
        """The missing partition that closed first."""
        return self.missing[0] if self.missing else None


def freshness_findings(con: DuckDBPyConnection, pipeline: Pipeline, *, now: datetime | None = None) -> list[Finding]:
    """One finding, in alarm if a partition after the newest live one is late.

    `con` reads `ledger.partitions`, of the warehouse or as published. Without a schedule and `monitoring.freshness`
    nothing is late; nor, by the schedule alone, before a first partition is live.
    """
    spec, at = pipeline.spec, now or clock.wall()
    newest = newest_live(con, spec.name)
    found = lateness(spec, newest, at)
    of = found.late[-1] if found.late else None
    key = of.partition.key if of else (newest.partition_key if newest else "")
    oldest = found.oldest
    return [
        Finding(
            event="freshness",
            rule="late",
            subject="newest partition",
            partition_key=key,
            scoring_id=None if of or not newest else newest.scoring_id,
            partitions=len(found.late) or 1,
            state=found.state,
            value=(at - oldest.at).total_seconds() if oldest else 0.0 if newest else None,
            threshold=(found.fail - oldest.at).total_seconds() if oldest and found.fail else None,
            chance=None,
            rows=0,
            cause=_cause(con, spec.name, found) if found.late else "",
            command=_command(spec.name, found),
        )
    ]


def collect_freshness(con: DuckDBPyConnection, pipeline: Pipeline) -> list[Finding]:
    """The finding of now, from the warehouse, which is opened for the read; none where there is no warehouse yet."""
    purpose = f"{pipeline.spec.name}: reading what is live"
    with suppress(NoWarehouseError), reading(con, pipeline.project, purpose=purpose):
        return freshness_findings(con, pipeline)
    return []


def newest_live(con: DuckDBPyConnection, name: str) -> Newest | None:
    """The newest live partition of a pipeline."""
    row = con.execute(_NEWEST.format(pipeline=literal(name))).fetchone()
    return Newest(row[0], row[1], clock.instant(row[2])) if row else None


def lateness(spec: PipelineSpec, newest: Newest | None, now: datetime) -> Lateness:
    """Judge what has closed since the newest live partition; where nothing is live, the newest closed one."""
    if newest:
        missing = closed_since(spec.partitions, newest.end, now)
    else:
        missing = closed_since(spec.partitions, now - 3 * LONGEST[spec.partitions.every], now)[-1:]
    declared = spec.monitoring is not None and spec.monitoring.freshness is not None
    if not missing:
        known = newest is not None and (declared or spec.schedule is not None)
        return Lateness("ok" if known else "unjudged", (), (), None)
    expected = expected_by(spec, missing[0].at) if newest or declared else None
    if expected is None:
        return Lateness("unjudged", tuple(missing), (), None)
    warn, fail = expected
    if now <= min(fail, warn or fail):
        return Lateness("ok", tuple(missing), (), fail)
    state: FindingState = "alarm" if now > fail else "warning"
    late = [each for each in missing if _is_late(spec, each, now, state)]
    return Lateness(state, tuple(missing), tuple(late), fail)


def _is_late(spec: PipelineSpec, each: Closed, now: datetime, state: FindingState) -> bool:
    expected = expected_by(spec, each.at)
    assert expected
    warn, fail = expected
    return now > (fail if state == "alarm" else warn or fail)


def _cause(con: DuckDBPyConnection, name: str, found: Lateness) -> str:
    """What became of the newest attempt at what is missing."""
    count = len(found.late)
    first = found.late[0].partition
    since = literal(first.start.astimezone(UTC).isoformat())
    row = con.execute(_ATTEMPT.format(pipeline=literal(name), since=since)).fetchone()
    of = f"{plural(count, 'partition')} from {first.key} not live" if count > 1 else f"{first.key} is not live"
    if row is None:
        return f"{of}: no run has tried it. The schedule may be stopped, or the daemon is not running"
    key, status, reason = row
    if status == "scored":
        return f"{of}: {key} was scored since, and is not live"
    return f"{of}: the newest attempt, {key}, is {status}: {reason}"


def _command(name: str, found: Lateness) -> str:
    if not found.late:
        return f"pip-dagster status {name}"
    first, last = found.late[0].partition.key, found.late[-1].partition.key
    return f"pip-dagster backfill {name} --from {first} --to {last}"
