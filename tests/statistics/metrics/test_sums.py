"""Sums add up over partitions: the figures of a window are those of its rows, not means of its days' figures."""

from __future__ import annotations

import json
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pip_dagster.statistics.metrics.measure import Measured, measure
from pip_dagster.statistics.metrics.spec import MetricSpec
from pip_dagster.statistics.metrics.sums import MetricSums, Stack
from pip_dagster.statistics.metrics.windows import LEAST_PARTITIONS, intervals

DAYS = 9
SPECS = {
    "binary": MetricSpec("binary", decisions=("flag",)),
    "weighted": MetricSpec("binary", weight="w"),
    "margin": MetricSpec("binary", scale="margin"),
    "multiclass": MetricSpec("multiclass", scores=("s0", "s1", "s2"), classes=("a", "b", "c")),
    "regression": MetricSpec("regression", training_mean=1.5),
    "quantile": MetricSpec("regression", scores=("s0", "s1"), quantiles=(0.1, 0.9)),
    "count": MetricSpec("count"),
    "tweedie": MetricSpec("count", weight="w", power=1.3),
    "ranking": MetricSpec("ranking", query="q"),
}
# From the fine bins; the others are exact.
BINNED = {"auc", "average_precision", "ece", "ece_chance", "gini", "ovr_auc"}


@pytest.fixture(scope="module")
def con():
    with duckdb.connect(config={"threads": 1}) as opened:
        yield opened


def rows(kind: str, n: int, rng: np.random.Generator, slope: float = 1.0, rate: float = 0.2) -> dict[str, np.ndarray]:
    """Calibrated scores where `slope` is 1; below it they are in a narrower range than the outcomes say."""
    x, day = rng.normal(size=n), rng.integers(0, DAYS, n)
    level = np.log(rate / (1 - rate))
    of = {"day": day, "w": rng.integers(1, 5, n) * 1.0, "q": day * 1_000_000 + rng.integers(0, n // 8 + 1, n)}
    if kind in ("binary", "weighted", "margin"):
        y = (rng.random(n) < 1 / (1 + np.exp(-(level + x)))) * 1.0
        margin = (level + slope * x).astype(np.float32)
        score = margin if kind == "margin" else (1 / (1 + np.exp(-margin))).astype(np.float32)
        return of | {"score": score, "pip_outcome": y, "flag": x > 1}
    if kind == "multiclass":
        odds = np.exp(rng.normal(size=(n, 3)))
        s = odds / odds.sum(axis=1, keepdims=True)
        y = (rng.random((n, 1)) > s.cumsum(axis=1)).sum(axis=1)
        return of | {"s0": s[:, 0], "s1": s[:, 1], "s2": s[:, 2], "pip_outcome": y}
    y = rng.integers(0, 3, n) if kind == "ranking" else rng.poisson(np.exp(0.6 * x)) * 1.0
    return of | {"score": np.exp(0.5 * x), "s0": np.exp(0.5 * x), "s1": 1 + np.exp(0.5 * x), "pip_outcome": y}


def by_day(con, kind: str, of: dict[str, np.ndarray]) -> tuple[list[Measured], Measured]:
    con.register("rows_of_days", pa.table(of))
    return measure(con, "rows_of_days", SPECS[kind], by=("day",)), measure(con, "rows_of_days", SPECS[kind])[0]


@pytest.mark.parametrize("kind", SPECS)
def test_a_window_has_the_figures_of_its_rows(con, kind):
    days, whole = by_day(con, kind, rows(kind, 3_000, np.random.default_rng(1)))
    window = MetricSums.total([each.sums for each in days])
    assert window.rows == whole.sums.rows == 3_000
    added = days[0].sums
    for each in days[1:]:
        added = added + MetricSums.from_text(each.sums.to_text())
    for found in (window.metrics(), added.metrics(), MetricSums.from_text(window.to_text()).metrics()):
        assert found.keys() == whole.metrics.keys()
        for name, value in found.items():
            off = 0.003 if name.partition(".")[0] in BINNED else 1e-9
            assert value.value == pytest.approx(whole.metrics[name].value, abs=off), name
            assert value[1:3] == whole.metrics[name][1:3]


@pytest.mark.parametrize(
    ("rate", "slope", "off"), [(0.2, 1.0, 2e-4), (0.01, 1.0, 5e-4), (0.2, 0.2, 5e-4), (0.2, 3.0, 1e-4)]
)
def test_the_area_of_a_window_is_off_by_less_than_a_thousandth(con, rate, slope, off):
    """Also where all scores are within about one log-odds (a slope of 0.2)."""
    rng = np.random.default_rng(2)
    for n in (2_000, 20_000):
        days, whole = by_day(con, "binary", rows("binary", n, rng, slope, rate))
        window = MetricSums.total([each.sums for each in days]).metrics()
        assert window["auc"].value == pytest.approx(whole.metrics["auc"].value, abs=off)
        assert window["ece"].value == pytest.approx(whole.metrics["ece"].value, abs=0.004)


def test_scores_at_the_ends_of_their_range_and_ties_have_bins(con):
    """0 and 1, a calibration of few steps, and numbers over many orders of magnitude."""
    for score in ([0.0, 1.0, 0.0, 1.0, 1e-30, 0.5], [0.2, 0.2, 0.2, 0.7, 0.7, 0.7]):
        con.register("ends", pa.table({"score": score, "pip_outcome": [0, 1, 1, 1, 0, 0]}))
        (found,) = measure(con, "ends", MetricSpec("binary"))
        assert found.sums.metrics()["auc"].value == pytest.approx(found.metrics["auc"].value, abs=1e-12)
        assert found.sums.metrics()["ece"].value == pytest.approx(found.metrics["ece"].value, abs=0.01)
    con.register("ends", pa.table({"score": [0.0, 1e-12, 1e-3, 5.0, 1e12], "pip_outcome": [0.0, 0.0, 1.0, 7.0, 1e13]}))
    (found,) = measure(con, "ends", MetricSpec("count"))
    assert found.sums.metrics()["gini"].value == pytest.approx(1.0) == found.metrics["gini"].value


def test_figures_of_days_are_not_averaged(con):
    """Two days whose levels differ: each orders its rows at random, and together they are in order."""
    rng = np.random.default_rng(3)
    day = np.repeat([0, 1], 500)
    of = {
        "day": day,
        "score": 0.1 + 0.8 * day + rng.random(1_000) / 10,
        "pip_outcome": (rng.random(1_000) < 0.1 + 0.8 * day),
    }
    con.register("two", pa.table(of))
    days = measure(con, "two", MetricSpec("binary"), by=("day",))
    assert np.mean([each.metrics["auc"].value for each in days]) < 0.6
    assert (days[0].sums + days[1].sums).metrics()["auc"].value > 0.85


def test_partitions_without_rows_or_with_one_class_add_up(con):
    empty = measure(con, "(SELECT 0.5 AS score, 1 AS pip_outcome LIMIT 0)", MetricSpec("binary"))[0].sums
    ones = measure(con, "(SELECT 0.5 AS score, 1 AS pip_outcome)", MetricSpec("binary"))[0].sums
    zeros = measure(con, "(SELECT 0.2 AS score, 0 AS pip_outcome)", MetricSpec("binary"))[0].sums
    assert (empty + empty).metrics()["auc"].reason == "no labelled rows"
    assert (empty + ones).metrics()["auc"].reason == "rows of one class only"
    assert (empty + ones + zeros).metrics()["auc"][:2] == (1.0, 2)


def test_sums_that_mean_different_things_do_not_add_up(con):
    of = measure(con, "(SELECT 0.5 AS score, 1 AS pip_outcome, true AS flag)", MetricSpec("binary"))[0].sums
    other = measure(con, "(SELECT 0.5 AS score, 1 AS pip_outcome, true AS flag)", SPECS["binary"])[0].sums
    with pytest.raises(ValueError, match="do not add up"):
        _ = of + other
    with pytest.raises(ValueError, match="no sums"):
        MetricSums.total([])
    with pytest.raises(ValueError, match="format 2"):
        MetricSums.from_text(json.dumps(json.loads(of.to_text()) | {"format": 2}))


def test_r2_of_versions_with_other_training_means_adds_up(con):
    """Each version's rows are measured against its own mean; of one whose mean is not known, there is no R²."""
    con.register("numbers", pa.table(rows("regression", 400, np.random.default_rng(4))))
    means = [1.0, 3.0, None]
    a, b, c = (measure(con, "numbers", replace(SPECS["regression"], training_mean=mean))[0].sums for mean in means)
    total = float(a.totals["about_training"] + b.totals["about_training"])
    assert (a + b).metrics()["r2"].value == pytest.approx(1 - 2 * float(a.totals["squared"]) / total)
    assert (a + c).metrics()["r2"].value is None and (a + c).metrics()["rmse"].value
    assert c.metrics()["r2"].reason == "the mean outcome in training is not known"


def test_all_windows_at_once_are_each_window_alone(con):
    days, _ = by_day(con, "binary", rows("binary", 1_000, np.random.default_rng(6)))
    stack = Stack.of([each.sums for each in days])
    windows = np.tril(np.ones((DAYS, DAYS))) - np.tril(np.ones((DAYS, DAYS)), -7)
    for i, found in enumerate(stack.metrics(windows)):
        alone = MetricSums.total([each.sums for each in days[max(0, i - 6) : i + 1]]).metrics()
        assert {name: each.value for name, each in found.items()} == pytest.approx(
            {name: each.value for name, each in alone.items()}
        )


def test_reliability_of_a_window(con):
    days, whole = by_day(con, "binary", rows("binary", 5_000, np.random.default_rng(7)))
    found = MetricSums.total([each.sums for each in days]).reliability()
    assert sum(each.rows for each in found) == 5_000
    for ours, exact in zip(found, whole.reliability, strict=True):
        assert ours.rows == pytest.approx(exact.rows, abs=100)
        assert (ours.score, ours.outcome) == pytest.approx((exact.score, exact.outcome), abs=0.02)
    assert (
        MetricSums.total(
            [by_day(con, "multiclass", rows("multiclass", 90, np.random.default_rng(8)))[1].sums]
        ).reliability()
        == ()
    )


class TestIntervals:
    def test_need_seven_partitions_with_rows(self, con):
        days, whole = by_day(con, "binary", rows("binary", 2_000, np.random.default_rng(9)))
        sums = [each.sums for each in days]
        empty = measure(con, "(SELECT * FROM rows_of_days LIMIT 0)", SPECS["binary"])[0].sums
        assert intervals(Stack.of([*sums[: LEAST_PARTITIONS - 1], empty])) == {}
        found, more = intervals(Stack.of(sums)), intervals(Stack.of([*sums, empty]))
        assert more.keys() == found.keys()
        for name, (low, high) in found.items():
            assert low <= MetricSums.total(sums).metrics()[name].value <= high
        assert found["auc"][1] - found["auc"][0] == pytest.approx(more["auc"][1] - more["auc"][0])
        assert found["auc"][0] < whole.metrics["auc"].value < found["auc"][1]
        wide = intervals(Stack.of(sums), 0.999)["auc"]
        assert wide[0] < found["auc"][0] and wide[1] > found["auc"][1]

    def test_none_where_one_partition_alone_has_the_positives(self, con):
        of = {"day": np.repeat(np.arange(8), 5), "score": np.linspace(0.1, 0.9, 40)}
        con.register("rare", pa.table(of | {"pip_outcome": (np.arange(40) == 3) * 1}))
        found = intervals(Stack.of([each.sums for each in measure(con, "rare", MetricSpec("binary"), by=("day",))]))
        assert "auc" not in found and "brier" in found
