"""The asset check `estimate` of predictions: one evaluation a partition, with what is expected of it without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import dagster as dg

from pip_dagster.declaration.key_order import in_order
from pip_dagster.errors import NoWarehouseError
from pip_dagster.ledger.estimates import live_scorings
from pip_dagster.monitoring.estimates import ShownEstimate, findings_of, graded, shown_of
from pip_dagster.monitoring.estimating import applies, estimate_scored
from pip_dagster.monitoring.finding import Finding
from pip_dagster.orchestration.checks import EACH_REPORTED_UP_TO, Evaluated, executed_alone
from pip_dagster.orchestration.failure import as_failure
from pip_dagster.orchestration.keys import ESTIMATE_NAME, predictions_key
from pip_dagster.quoted import said
from pip_dagster.registry.choose import registry_of
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.interrupts import raise_if_interrupted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion


def estimate_evaluations(
    con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, partitions: Sequence[str]
) -> Iterator[dg.AssetCheckEvaluation]:
    """Estimate the newest of these partitions, at most as many as a run reports one by one, and judge the estimates.

    It never fails a run: where nothing can be estimated, the description has the reason. `con` is a workspace without
    the warehouse.
    """
    newest = in_order(pipeline.spec.partitions, partitions)[-EACH_REPORTED_UP_TO:]
    if not newest or not applies(pipeline):
        return
    try:
        reasons = estimate_scored(con, pipeline, version, newest).reasons
        found = graded(con, pipeline, version)
        shown = shown_of(found, newest)
        findings = findings_of(pipeline, version, found)
    except Exception as error:
        raise_if_interrupted(error)
        reasons, shown, findings = {newest[-1]: f"not estimated: {said(error)}"}, [], []
    for key in newest:
        of_partition = [each for each in shown if each.partition_key == key]
        if of_partition or key in reasons:
            yield _evaluation(pipeline, key, of_partition, findings, reasons.get(key, ""))


def estimate_alone(pipeline: Pipeline, check: dg.AssetCheckKey, partitions: Sequence[str]) -> Iterator[Evaluated]:
    """The check executed without its asset: of these partitions, or, without any, of the newest.

    Raises:
        Failure: what is stored cannot be read, with the reason.
    """
    scoring, found = pipeline.spec.scoring, list[dg.AssetCheckEvaluation]()
    with as_failure(), suppress(NoWarehouseError), workspace(threads=1) as con:
        version = registry_of(pipeline.project, scoring).get(scoring.model_name, scoring.alias)
        found = [*estimate_evaluations(con, pipeline, version, partitions or _newest(con, pipeline, version))]
    nothing = "Nothing was estimated: no such partition is scored by this version. Materialize it first."
    yield from executed_alone(check, found, nothing)


def _newest(con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion) -> list[str]:
    name = pipeline.spec.name
    with reading(con, pipeline.project, purpose=f"{name}: reading the ledger"):
        return [each.partition_key for each in live_scorings(con, name, version.manifest_digest)[-1:]]


def _evaluation(
    pipeline: Pipeline, partition: str, shown: Sequence[ShownEstimate], findings: Sequence[Finding], reason: str
) -> dg.AssetCheckEvaluation:
    alarms = [each for each in findings if each.state == "alarm"]
    known = [each for each in shown if each.metric]
    texts = [f"In alarm: {each.cause}" for each in alarms]
    texts += [f"{each.metric}: {each.text}" for each in known] or [
        f"no estimate: {reason or (shown[0].text.removeprefix('no estimate: ') if shown else 'no row')}"
    ]
    metadata: dict[str, float | str] = {}
    for each in known:
        if each.withdrawn:
            metadata[f"{each.metric} estimate"] = each.text
        elif each.value is not None and each.low is not None and each.high is not None:
            metadata |= {f"{each.metric} estimate": each.value, f"{each.metric} low": each.low}
            metadata |= {f"{each.metric} high": each.high}
        if each.record.graded:
            metadata[f"{each.metric} held"] = f"{each.record.held} of {each.record.graded}"
    return dg.AssetCheckEvaluation(
        asset_key=predictions_key(pipeline.spec),
        check_name=ESTIMATE_NAME,
        partition=partition,
        passed=not alarms,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(texts) + ".",
        metadata=metadata,
        blocking=False,
    )
