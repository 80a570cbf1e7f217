"""What came of rows that a version was not trained on, as it was measured when the version was registered."""

from __future__ import annotations

from pydantic import FiniteFloat

from pip_dagster.registry.booster_signature import Record


class HeldOutBin(Record):
    """The rows with a score in one bin of the manifest's `score_reference`.

    Sums over them: of the score (calibrated where the version is), of the outcome (of a class: 1 for its rows), of the
    absolute and of the squared error, score - outcome.
    """

    rows: int
    score: FiniteFloat
    outcome: FiniteFloat
    error: FiniteFloat
    squared: FiniteFloat


class HeldOut(Record):
    """Measured on `rows` rows of the sample with an outcome in its column `outcome`.

    `metrics` has the metrics of the task that these rows give, by their names in docs/figures.md. `bins`: of each
    output, by the bins of its `score_reference`.
    """

    outcome: str
    rows: int
    outcome_mean: FiniteFloat
    outcome_sd: FiniteFloat
    metrics: dict[str, FiniteFloat]
    bins: dict[str, tuple[HeldOutBin, ...]]
