"""What drift reports to alarms and checks: one finding a column and partition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.ledger.live import newest_changes
from pip_dagster.monitoring.drift import PartitionDrift, drift_at
from pip_dagster.monitoring.finding import Finding, FindingState, Scope
from pip_dagster.monitoring.series import read_series
from pip_dagster.warehouse.access import reading

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion

# `noted`: no split of the model uses the feature, so that nobody is notified at once. `drifted` is a rule of its own.
_STATES: dict[str, FindingState] = {"alarm": "alarm", "noted": "warning", "drifted": "ok", "ok": "ok"}
_LASTING = 28
_SCOPES: dict[str, Scope] = {"score": "score", "decision": "decision", "feature": "feature"}


def drift_findings(
    con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, partitions: Sequence[str]
) -> list[Finding]:
    """The columns of those partitions that are profiled on the bins of the version."""
    rules = pipeline.spec.monitoring or Monitoring()
    series = read_series(con, pipeline, version)
    places = [at for at, key in enumerate(series.partitions) if key in partitions]
    if not places:
        return []
    with reading(con, pipeline.project, purpose=f"{pipeline.spec.name}: reading what is live"):
        live = newest_changes(con, pipeline.spec.name, [series.partitions[at] for at in places])
    found: list[Finding] = []
    for at in places:
        judged = drift_at(series, at, rules)
        found += _findings(pipeline, judged, rules, live[judged.partition_key].scoring_id)
    return found


def _findings(pipeline: Pipeline, of: PartitionDrift, rules: Monitoring, scoring_id: str) -> Iterator[Finding]:
    for column in of.columns:
        length = 7 if column.rule == "week" else 1
        window = next((each for each in column.windows if each.partitions == length), None)
        excess = window.excess if window else None
        found = Finding(
            event="drift",
            rule="drift",
            subject=column.name,
            partition_key=of.partition_key,
            scoring_id=scoring_id,
            partitions=length,
            state=_STATES.get(column.state, "unjudged"),
            value=excess,
            threshold=rules.psi / 2 if column.rule == "week" else rules.psi,
            chance=rules.false_alarms,
            rows=window.rows if window else of.rows,
            cause=column.changed + ("; the model does not use it" if column.state == "noted" else ""),
            command=f"pip-dagster monitor {pipeline.spec.name} --partition {of.partition_key}",
            scope=_SCOPES[column.kind],
            weight=None if excess is None else excess * (1.0 if column.gain is None else column.gain),
        )
        yield found
        lasting = next((each for each in column.windows if each.partitions == _LASTING), None)
        drifted = column.state == "drifted" and lasting is not None
        yield replace(
            found,
            rule="lasting",
            partitions=_LASTING,
            state="warning" if drifted else "unjudged" if found.state == "unjudged" or lasting is None else "ok",
            value=lasting.excess if lasting else None,
            threshold=rules.psi / 2,
            chance=None,
            rows=lasting.rows if lasting else of.rows,
            cause="unlike training for 28 partitions, and no longer news: train on newer rows" if drifted else "",
        )
