"""The asset check `drift` of predictions: one evaluation a partition, from the profiles that the run stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import dagster as dg

from pip_dagster.declaration.key_order import in_order
from pip_dagster.errors import NoWarehouseError
from pip_dagster.flow.model import ScoringModel
from pip_dagster.monitoring.backfill import profile_stored
from pip_dagster.monitoring.drift import ColumnDrift, PartitionDrift
from pip_dagster.monitoring.judged import judge_drift
from pip_dagster.orchestration.checks import EACH_REPORTED_UP_TO, Evaluated, executed_alone
from pip_dagster.orchestration.failure import as_failure
from pip_dagster.orchestration.keys import DRIFT_NAME, predictions_key
from pip_dagster.quoted import said
from pip_dagster.registry.choose import registry_of
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.interrupts import raise_if_interrupted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion

_SHOWN = 20


def drift_evaluations(
    con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, partitions: Sequence[str]
) -> Iterator[dg.AssetCheckEvaluation]:
    """Judge the newest of these partitions, at most as many as a run reports one by one. `con` is a workspace.

    Monitoring never fails a run: what cannot be judged is an evaluation that does not pass, with the reason.
    """
    newest = in_order(pipeline.spec.partitions, partitions)[-EACH_REPORTED_UP_TO:]
    if not newest:
        return
    try:
        judged = _judged(con, pipeline, version, newest)
    except Exception as error:
        raise_if_interrupted(error)
        yield _evaluation(pipeline, newest[-1], passed=False, description=f"Not judged: {said(error)}")
        return
    yield from (_evaluation_of(pipeline, found) for found in judged)


def drift_alone(pipeline: Pipeline, check: dg.AssetCheckKey, partitions: Sequence[str] | None) -> Iterator[Evaluated]:
    """The check executed without its asset: of these partitions, or of the newest that is profiled.

    Raises:
        Failure: what is stored cannot be judged, with the reason.
    """
    scoring, found = pipeline.spec.scoring, list[PartitionDrift]()
    with as_failure(), suppress(NoWarehouseError), workspace(threads=1) as con:
        version = registry_of(pipeline.project, scoring).get(scoring.model_name, scoring.alias)
        found = _judged(con, pipeline, version, partitions)
    nothing = (
        "Nothing was judged: no such partition is profiled. Materialize it, or run `pip-dagster monitor "
        f"{pipeline.spec.name} --backfill`."
    )
    yield from executed_alone(check, [_evaluation_of(pipeline, each) for each in found], nothing)


def _judged(
    con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, partitions: Sequence[str] | None
) -> list[PartitionDrift]:
    """These partitions, or the newest profiled one. What was scored before monitoring was declared is profiled now."""
    found = judge_drift(con, pipeline, version, partitions)
    lacking = {*(partitions or ())} - {each.partition_key for each in found}
    if lacking:
        model = ScoringModel.resolve(pipeline, 1, version=version.version)
        if profile_stored(con, pipeline, model, keys=lacking):
            found = judge_drift(con, pipeline, version, partitions)
    return found


def _evaluation_of(pipeline: Pipeline, found: PartitionDrift) -> dg.AssetCheckEvaluation:
    return _evaluation(pipeline, found.partition_key, passed=not found.alarms, description=found.text, of=found)


def _evaluation(
    pipeline: Pipeline, partition: str, *, passed: bool, description: str, of: PartitionDrift | None = None
) -> dg.AssetCheckEvaluation:
    metadata: dict[str, dg.MetadataValue] = {}
    if of:
        shown = [each for each in of.columns if each.state in ("alarm", "noted", "drifted")][:_SHOWN]
        metadata |= _plotted(of)
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


def _plotted(of: PartitionDrift) -> dict[str, dg.MetadataValue]:
    """Numbers that Dagster plots over partitions."""
    found: dict[str, dg.MetadataValue] = {
        "rows": dg.MetadataValue.int(of.rows),
        "columns in alarm": dg.MetadataValue.int(len(of.alarms)),
        "columns drifted from training": dg.MetadataValue.int(sum(each.state == "drifted" for each in of.columns)),
    }
    scores = [each.excess for each in of.columns if each.kind == "score" and each.segment is None]
    figures = {"max PSI": of.max_psi, "PSI of the score": next(iter(scores), None)}
    return found | {name: dg.MetadataValue.float(value) for name, value in figures.items() if value is not None}


_SCHEMA = dg.TableSchema(columns=[dg.TableColumn(name) for name in ("column", "state", "gain", "psi", "changed")])


def _record(each: ColumnDrift) -> dg.TableRecord:
    psi = "" if each.excess is None else f"{each.excess:.3g}"
    gain = "" if each.gain is None else f"{each.gain:.3g}"
    return dg.TableRecord(
        {"column": each.title, "state": each.state, "gain": gain, "psi": psi, "changed": each.changed}
    )
