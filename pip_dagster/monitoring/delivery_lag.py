"""Whether a target has waited too long for a live change, from the ledger and the declaration alone."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.declaration.durations import as_declared
from pip_dagster.errors import NoWarehouseError
from pip_dagster.ledger.deliveries import Pending, pending_deliveries
from pip_dagster.monitoring.finding import Finding
from pip_dagster.monitoring.freshness import newest_live
from pip_dagster.plural import plural
from pip_dagster.warehouse.access import reading

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline


def delivery_findings(con: DuckDBPyConnection, pipeline: Pipeline, *, now: datetime | None = None) -> list[Finding]:
    """A finding for each target with `alarm_after`, of the newest live partition: what is pending may be an older one.

    `con` has the warehouse open.
    """
    name, at = pipeline.spec.name, now or clock.wall()
    targets = {key: each for key, each in pipeline.spec.deliver.items() if each.alarm_after is not None}
    newest = newest_live(con, name) if targets else None
    if newest is None:
        return []
    digests = {key: each.digest for key, each in targets.items()}
    pending: dict[str, list[Pending]] = {key: [] for key in targets}
    for each in pending_deliveries(con, name, digests):
        pending[each.target].append(each)
    found = []
    for target, declared in targets.items():
        assert declared.alarm_after is not None
        waiting = sorted(pending[target], key=lambda each: each.live_since)
        late = [each for each in waiting if at - each.live_since > declared.alarm_after]
        found.append(
            Finding(
                event="delivery",
                rule="lag",
                subject=target,
                partition_key=newest.partition_key,
                scoring_id=newest.scoring_id,
                partitions=len(late) or 1,
                state="alarm" if late else "ok",
                value=(at - waiting[0].live_since).total_seconds() if waiting else 0.0,
                threshold=declared.alarm_after.total_seconds(),
                chance=None,
                rows=0,
                cause=_cause(late, as_declared(declared.alarm_after)) if late else "",
                command=f"pip-dagster deliver {name} --target {target}",
            )
        )
    return found


def collect_delivery(con: DuckDBPyConnection, pipeline: Pipeline) -> list[Finding]:
    """The findings of now, from the warehouse, which is opened for the read; none where there is no warehouse yet."""
    purpose = f"{pipeline.spec.name}: reading what is pending"
    with suppress(NoWarehouseError), reading(con, pipeline.project, purpose=purpose):
        return delivery_findings(con, pipeline)
    return []


def _cause(late: list[Pending], allowed: str) -> str:
    """Which partitions wait, and what the newest attempt ended in."""
    oldest = late[0]
    of = f"{plural(len(late), 'partition')} from {oldest.partition_key}" if len(late) > 1 else oldest.partition_key
    errors = [each.error for each in late if each.error]
    why = errors[-1] if errors else "no run has tried it since"
    return f"{of} live for more than {allowed} and not delivered: {why}"
