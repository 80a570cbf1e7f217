"""What drift reports to alarms and checks: one finding a column and partition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.errors import NoWarehouseError
from pip_dagster.monitoring.backfill import profile_what_lost_rows
from pip_dagster.monitoring.drift import ColumnDrift, PartitionDrift, WindowDrift
from pip_dagster.monitoring.finding import Finding, FindingState, Scope
from pip_dagster.monitoring.judged import judge_drift

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion

# `noted`: no split of the model uses the feature, so that nobody is notified at once. `drifted` is a rule of its own.
_STATES: dict[str, FindingState] = {"alarm": "alarm", "noted": "warning", "drifted": "ok", "ok": "ok"}
_LASTING, _RECENT = 28, 7
_SCOPES: dict[str, Scope] = {"score": "score", "decision": "decision", "feature": "feature"}


def drift_findings(
    con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, partitions: Sequence[str]
) -> list[Finding]:
    """The columns of those partitions that are profiled on the bins of the version, the others after an erasure too."""
    with suppress(NoWarehouseError):
        profile_what_lost_rows(con, pipeline, version)
    judged = judge_drift(con, pipeline, version, partitions)
    return [finding for each in judged for finding in findings_of(pipeline, each)]


def findings_of(pipeline: Pipeline, of: PartitionDrift) -> Iterator[Finding]:
    """Two findings a column, of what is news and of what lasts, always under these names, so that they can resolve."""
    rules = pipeline.spec.monitoring or Monitoring()
    for column in of.columns:
        if column.segment is not None and not any(window.partitions <= _RECENT for window in column.windows):
            continue  # a value that no longer occurs: nothing is judged, and what was in alarm is over
        length = 7 if column.rule == "week" else 1
        window = column.window(length, "training") or column.window(length, "previous")
        value = None if window is None else _value(column, window)
        found = Finding(
            event="drift",
            rule="drift",
            subject=column.title,
            partition_key=of.partition_key,
            scoring_id=of.scoring_id,
            partitions=length,
            state=_STATES.get(column.state, "unjudged"),
            value=value,
            threshold=column.threshold,
            chance=rules.false_alarms,
            rows=window.rows if window else of.rows,
            cause=column.changed + ("; the model does not use it" if column.state == "noted" else ""),
            command=f"pip-dagster monitor {pipeline.spec.name} {of.partition_key}",
            scope=_SCOPES[column.kind],
            weight=None if window is None else _weight(column, window),
        )
        yield found
        lasting = column.window(_LASTING, "training")
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


def _weight(column: ColumnDrift, window: WindowDrift) -> float:
    """Never 0 or less for what is in alarm and the model uses: the PSI of a share that rose can be within the noise."""
    return max(window.excess, _value(column, window)) * (1.0 if column.gain is None else column.gain)


def _value(column: ColumnDrift, window: WindowDrift) -> float:
    """What the rule that raised it compares with its threshold: the rise of a share, or PSI beyond noise."""
    return column.share_now - column.share_before if column.rule in ("missing", "unseen") else window.excess
