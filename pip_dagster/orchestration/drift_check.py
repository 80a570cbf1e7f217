"""The asset check `drift` of predictions: one evaluation a partition, from the profiles that the run stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from pip_dagster.monitoring.drift import ColumnDrift, PartitionDrift, drift_at
from pip_dagster.monitoring.series import read_series
from pip_dagster.orchestration.checks import DRIFT_NAME, EACH_REPORTED_UP_TO
from pip_dagster.orchestration.keys import predictions_key
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.interrupts import raise_if_interrupted

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion

_SHOWN = 20


def drift_evaluations(
    pipeline: Pipeline, version: ModelVersion, partitions: Sequence[str]
) -> Iterator[dg.AssetCheckEvaluation]:
    """Judge the newest of these partitions, at most as many as a run reports one by one.

    Monitoring never fails a run: what cannot be judged is an evaluation that does not pass, with the reason.
    """
    rules = pipeline.spec.monitoring
    newest = sorted(partitions)[-EACH_REPORTED_UP_TO:]
    if rules is None or not newest:
        return
    try:
        with workspace(threads=1) as con:
            series = read_series(con, pipeline, version)
        places = [at for at, key in enumerate(series.partitions) if key in newest]
        judged = [drift_at(series, at, rules) for at in places]
    except Exception as error:
        raise_if_interrupted(error)
        yield _evaluation(pipeline, newest[-1], passed=False, description=f"Not judged: {error}")
        return
    for found in judged:
        yield _evaluation(pipeline, found.partition_key, passed=not found.alarms, description=_text(found), of=found)


def _evaluation(
    pipeline: Pipeline, partition: str, *, passed: bool, description: str, of: PartitionDrift | None = None
) -> dg.AssetCheckEvaluation:
    metadata: dict[str, dg.MetadataValue] = {}
    if of:
        shown = [each for each in of.columns if each.state in ("alarm", "noted", "drifted")][:_SHOWN]
        metadata["rows"] = dg.MetadataValue.int(of.rows)
        if shown:
            metadata["columns"] = dg.MetadataValue.table([_record(each) for each in shown], schema=_SCHEMA)
    return dg.AssetCheckEvaluation(
        asset_key=predictions_key(pipeline.spec),
        check_name=DRIFT_NAME,
        partition=partition,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata=metadata,
        blocking=False,
    )


def _text(of: PartitionDrift) -> str:
    if of.alarms:
        return "In alarm: " + "; ".join(f"{each.name}, {each.changed}" for each in of.alarms)
    if all(each.state == "unjudged" for each in of.columns):
        return f"Not judged yet: only {of.history} partitions before it."
    return "No column is in alarm."


_SCHEMA = dg.TableSchema(columns=[dg.TableColumn(name) for name in ("column", "state", "gain", "psi", "changed")])


def _record(each: ColumnDrift) -> dg.TableRecord:
    psi = "" if not each.windows else f"{each.windows[0].excess:.3g}"
    gain = "" if each.gain is None else f"{each.gain:.3g}"
    return dg.TableRecord({"column": each.name, "state": each.state, "gain": gain, "psi": psi, "changed": each.changed})
