"""Measured processes that several groups use: a partition of a size, and runs of partitions in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.measure import Timed

if TYPE_CHECKING:
    import numpy as np

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion

DAY = "2014-01-01"  # the one partition of the large tables


def scale(size: str, part: str, batch_rows: str = "0") -> None:
    """One partition: `predictions` from stored features, or `whole`, with the feature SQL and the snapshot.

    Reports as `published` the seconds for publishing, which are part of its seconds.
    """
    with data.scratch() as folder:
        scoring = {"batch_rows": int(batch_rows)} if int(batch_rows) else {}
        rows, timed, publishing = run(data.scale_pipeline(size, folder, **scoring), part)
    timed.report(rows=rows, published=sum(each.seconds for each in publishing))


def run(pipeline: Pipeline, part: str) -> tuple[int, Timed, list[Timed]]:
    """The rows of `part` of one partition, as of `scale`, its time, and that of each publication in it."""
    from pip_dagster.warehouse import access

    publishing: list[Timed] = []
    publish = access.publish_pending  # type: ignore[attr-defined]

    def timed_publish(*arguments: object, **options: object) -> int:
        with Timed() as of_publish:
            written = publish(*arguments, **options)  # type: ignore[arg-type]
        publishing.append(of_publish)
        return written

    access.publish_pending = timed_publish  # type: ignore[attr-defined]
    if part == "predictions":
        materialize(pipeline, [DAY], predictions=False)
    publishing.clear()
    import pandas  # noqa: F401  # the floor's imports are not measured either
    import xgboost  # noqa: F401

    with Timed() as timed:
        rows = materialize(pipeline, [DAY], features=part == "whole")
    return rows, timed, publishing


def time_floor(version: ModelVersion, X: np.ndarray) -> None:
    """Time `Booster.inplace_predict` on a float32 array of shape (rows, features) in memory."""
    import xgboost as xgb

    from pip_dagster.flow.engine import available_threads

    booster = xgb.Booster()
    booster.load_model(bytearray(version.model_bytes()))
    booster.set_param({"nthread": available_threads()})
    booster.inplace_predict(X[:100_000])
    with Timed() as timed:
        booster.inplace_predict(X)
    timed.report(rows=len(X))


def materialize(pipeline: Pipeline, keys: Sequence[str], *, features: bool = True, predictions: bool = True) -> int:
    """Materialize partitions, all of which must succeed; how many rows their features have."""
    from pip_dagster.flow.materialize import materialize
    from pip_dagster.ledger.record import RunInfo
    from pip_dagster.orchestration.partitions import partitions_definition, partitions_of

    partitions = partitions_of(partitions_definition(pipeline.spec.partitions), list(keys))
    run = RunInfo("benchmark", "benchmark")
    results = list(materialize(pipeline, partitions, run, features=features, predictions=predictions))
    wrong = [result.error for result in results if result.error]
    assert not wrong, wrong[0]
    return sum(result.features.rows_extracted for result in results if result.features)
