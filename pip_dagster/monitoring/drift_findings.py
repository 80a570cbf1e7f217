"""Findings of drift: the form in which alarms, checks and reports take it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.monitoring.drift import ColumnDrift, PartitionDrift, State
from pip_dagster.monitoring.finding import Finding, FindingState
from pip_dagster.monitoring.rules import WEEK

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

_STATES: dict[State, FindingState] = {
    "alarm": "alarm",
    "noted": "ok",  # the model does not use it
    "drifted": "warning",
    "ok": "ok",
    "unjudged": "unjudged",
}


def findings_of(pipeline: Pipeline, found: PartitionDrift) -> list[Finding]:
    """One finding a column; those of scores and decisions first, then what the model uses most."""
    rules = pipeline.spec.monitoring or Monitoring()
    command = f"pip-dagster monitor {pipeline.spec.name} --partition {found.partition_key}"
    return [_finding(found, each, rules, command) for each in found.columns]


def _finding(found: PartitionDrift, each: ColumnDrift, rules: Monitoring, command: str) -> Finding:
    partitions = WEEK if each.rule == "week" else 1
    window = each.window(partitions, "training") or each.window(partitions, "previous")
    value = window.excess if window else None
    if each.rule in ("missing", "unseen"):
        value = each.share_now - each.share_before
    return Finding(
        event="drift",
        rule=each.rule or "drift",
        subject=each.title,
        partition_key=found.partition_key,
        scoring_id=found.scoring_id,
        partitions=partitions,
        state=_STATES[each.state],
        value=value,
        threshold=each.threshold,
        chance=rules.false_alarms,
        rows=window.rows if window else 0,
        cause=each.changed if each.rule else "",
        command=command,
    )
