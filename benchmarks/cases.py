"""Measured processes that several groups use: a partition of a size, and runs of partitions in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.measure import Timed

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline


def scale(size: str, part: str, batch_rows: str = "0") -> None:
    """One partition: `predictions` from stored features, or `whole`, with the feature SQL and the snapshot.

    Reports as `published` the seconds for publishing, which are part of its seconds.
    """
    from pip_dagster.warehouse import access

    spent = [0.0]
    publish = access.publish_pending  # type: ignore[attr-defined]

    def timed_publish(*arguments: object, **options: object) -> int:
        with Timed() as of_publish:
            written = publish(*arguments, **options)  # type: ignore[arg-type]
        spent[0] += of_publish.seconds
        return written

    access.publish_pending = timed_publish  # type: ignore[attr-defined]
    with data.scratch() as folder:
        scoring = {"batch_rows": int(batch_rows)} if int(batch_rows) else {}
        pipeline = data.scale_pipeline(size, folder, **scoring)
        if part == "predictions":
            materialize(pipeline, ["2014-01-01"], predictions=False)
        spent[0] = 0.0
        import pandas  # noqa: F401  # the floor's imports are not measured either
        import xgboost  # noqa: F401

        with Timed() as timed:
            rows = materialize(pipeline, ["2014-01-01"], features=part == "whole")
    timed.report(rows=rows, published=spent[0])


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
