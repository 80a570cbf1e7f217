"""How often intervals hold the true figure: rows of a day share part of their luck and of the scores' errors."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from scipy.special import ndtr

from pip_dagster.statistics.metrics.measure import measure
from pip_dagster.statistics.metrics.spec import MetricSpec
from pip_dagster.statistics.metrics.sums import Stack
from pip_dagster.statistics.metrics.windows import intervals

ROWS = 200
SPECS = {kind: MetricSpec(kind, training_mean=0.0) for kind in ("binary", "regression", "count")}
# Of a calibration that errs by chance alone, they are biased upwards: docs/figures.md.
BIASED = {"ece", "ece_chance"}


def draw(kind: str, repeats: int, days: int, rows: int, icc: float) -> pa.Table:
    """`icc`: the share of the variance of luck that the rows of a day have in common."""
    rng = np.random.default_rng(days + round(1000 * icc))
    repeat, day = np.repeat(np.arange(repeats), days * rows), np.tile(np.repeat(np.arange(days), rows), repeats)

    def of_day() -> np.ndarray:
        return icc**0.5 * rng.normal(size=repeats * days)[repeat * days + day]

    x = rng.normal(size=len(repeat))
    luck = of_day() + (1 - icc) ** 0.5 * rng.normal(size=len(repeat))
    s = x + 0.3 * of_day() + 0.6 * rng.normal(size=len(repeat))
    if kind == "binary":
        score, y = ndtr(0.7 * s - 1).astype(np.float32), (x + luck > 1) * 1.0
    elif kind == "regression":
        score, y = 0.7 * s, x + luck
    else:
        score, y = np.exp(0.5 * s - 0.3), rng.poisson(np.exp(0.5 * x + 0.5 * luck)) * 1.0
    return pa.table({"repeat": repeat, "day": day, "score": score, "pip_outcome": y})


def coverage(kind: str, repeats: int, days: int, icc: float, truth_days: int = 4_000) -> dict[str, float]:
    """The share of intervals that hold the figure of `truth_days` with 250 rows each, by metric."""
    with duckdb.connect(config={"threads": 1}) as con:
        con.register("truth", draw(kind, 1, truth_days, 250, icc))
        truth = {name: each.value for name, each in measure(con, "truth", SPECS[kind])[0].metrics.items()}
        con.register("drawn", draw(kind, repeats, days, ROWS, icc))
        found = measure(con, "drawn", SPECS[kind], by=("repeat", "day"))
    hits: dict[str, list[bool]] = {}
    for i in range(repeats):
        window = intervals(Stack.of([each.sums for each in found[i * days : (i + 1) * days]]))
        for name in window.keys() - BIASED:
            hits.setdefault(name, []).append(window[name][0] <= truth[name] <= window[name][1])
    assert {len(each) for each in hits.values()} == {repeats}
    return {name: float(np.mean(each)) for name, each in hits.items()}


@pytest.mark.soak
@pytest.mark.parametrize("icc", [0, 0.01, 0.05])
@pytest.mark.parametrize("days", [7, 14, 28])
@pytest.mark.parametrize("kind", SPECS)
def test_intervals_hold_the_truth_as_often_as_they_say(kind, days, icc):
    found = coverage(kind, 1_000, days, icc)
    assert all(0.92 <= share <= 0.98 for share in found.values()), found


def test_in_short():
    found = coverage("binary", 60, 7, 0.05, truth_days=400)
    assert {"auc", "logloss", "brier", "bias"} <= found.keys() and all(share > 0.8 for share in found.values()), found
