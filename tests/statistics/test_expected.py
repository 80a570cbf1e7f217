"""Expected metrics: with outcomes as probabilities they are what is measured; otherwise the mean over all outcomes."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pip_dagster.statistics.band import TRAILING, TrackRecord, band, record
from pip_dagster.statistics.expected import CalibratedRows, Expected, expected
from pip_dagster.statistics.loss_table import (
    LossTable,
    beyond,
    edges_of,
    expected_losses,
    losses_sql,
    make_table,
    measured_losses,
)
from pip_dagster.statistics.metrics.measure import measure_arrays
from pip_dagster.statistics.metrics.spec import MetricSpec
from pip_dagster.statistics.score_curve import CLIP, ScoreCurve, fit_curve, logit_sql

BINARY = MetricSpec("binary", decisions=("high", "low"))
CLASSES = MetricSpec("multiclass", scores=("a", "b", "c"), classes=("a", "b", "c"))
KNOTS = (-1.0, 0.5)


def evaluate(spec, columns, p, curves=None, keys=None):
    """Metric → what is expected; `p` is (rows, classes)."""
    p = np.asarray(p, float).reshape(len(p), len(spec.scores))
    logits = [
        np.log(np.clip(columns[name], CLIP, 1 - CLIP)) - np.log1p(-np.clip(columns[name], CLIP, 1 - CLIP))
        for name in spec.scores
    ]
    given = {f"pip_p{k}": p[:, k] for k in range(p.shape[1])} | {f"pip_l{k}": each for k, each in enumerate(logits)}
    keys = np.array(["a"] * len(p)) if keys is None else keys
    con = duckdb.connect(config={"threads": 1})
    keys = pa.array([*keys], pa.string())
    con.register("t", pa.table({"partition_key": keys, "pip_group": np.zeros(len(p), np.int64)} | columns | given))
    rows = CalibratedRows("t", spec, (KNOTS,) * len(spec.scores) if curves else ())
    return expected(con, rows, curves or {})


def binary_rows(rng, rows):
    """Scores with ties, exact zeros and ones; decisions with gaps."""
    score = np.round(rng.beta(1, 2, rows), 2)
    score[:2] = 0, 1
    high = np.where(np.arange(rows) % 7 == 0, None, score > 0.4)
    return {"score": score, "high": pa.array([*high], pa.bool_()), "low": score < 0.3}


@pytest.mark.parametrize("rows", [40, 400])
def test_with_outcomes_it_is_what_the_metrics_measure(rows):
    rng = np.random.default_rng(rows)
    columns = binary_rows(rng, rows)
    y = (rng.random(rows) < np.clip(columns["score"], 0.3, 0.7)).astype(float)
    measured = measure_arrays(BINARY, columns | {"pip_outcome": y}).metrics
    found = evaluate(BINARY, columns, y)["a"]
    assert set(found) == {"auc", "base_rate", "logloss", "brier"} | {
        f"{name}.{decision}" for name in ("precision", "recall") for decision in ("high", "low")
    }
    for metric, each in found.items():
        assert each.value == pytest.approx(measured[metric].value, abs=1e-9), metric
        assert each.variance == pytest.approx(0, abs=1e-12)


def test_classes_are_what_the_metrics_measure():
    rng = np.random.default_rng(5)
    p = rng.dirichlet((1, 2, 3), 500)
    p[:100] = np.round(p[:100], 1)
    p[:100] /= p[:100].sum(axis=1, keepdims=True)
    outcome = np.array([rng.choice(3, p=each) for each in p])
    columns = {name: p[:, k] for k, name in enumerate("abc")}
    measured = measure_arrays(CLASSES, columns | {"pip_outcome": outcome.astype(float)}).metrics
    found = evaluate(CLASSES, columns, np.eye(3)[outcome])["a"]
    assert set(found) == {"accuracy", "multi_logloss", "macro_f1", "ovr_auc"}
    for metric, each in found.items():
        assert each.value == pytest.approx(measured[metric].value, abs=1e-9), metric


@pytest.mark.parametrize("spec", [BINARY, CLASSES])
def test_mean_and_spread_over_outcomes(spec):
    """What is measured of many draws of the outcomes: its mean and standard deviation are as estimated."""
    rng = np.random.default_rng(6)
    if spec is BINARY:
        columns = binary_rows(rng, 300)
        p = np.clip(columns["score"], 0.05, 0.95)[:, None]
        drawn = [(rng.random(300) < p[:, 0])[:, None].astype(float) for _ in range(300)]
    else:
        p = rng.dirichlet((1, 2, 3), 300)
        columns = {name: p[:, k] for k, name in enumerate("abc")}
        drawn = [np.eye(3)[(p.cumsum(axis=1) > rng.random((300, 1))).argmax(axis=1)] for _ in range(300)]
    many = {name: np.tile(np.asarray(values), 300) for name, values in columns.items() if name != "high"}
    if spec is BINARY:
        many["high"] = pa.array(columns["high"].to_pylist() * 300, pa.bool_())
    keys = np.repeat(np.arange(300), 300).astype(str)
    truths = evaluate(spec, many, np.concatenate(drawn), keys=keys)
    for metric, each in evaluate(spec, columns, p)["a"].items():
        measured = np.array([of[metric].value for of in truths.values()])
        assert each.value == pytest.approx(measured.mean(), abs=4 * measured.std() / 300**0.5 + 0.002), metric
        assert each.variance**0.5 == pytest.approx(measured.std(), rel=0.2), metric


def test_uncertainty_of_the_calibrator_is_the_derivative():
    rng = np.random.default_rng(7)
    columns = binary_rows(rng, 400)
    logit = np.log(np.clip(columns["score"], CLIP, 1 - CLIP)) - np.log1p(-np.clip(columns["score"], CLIP, 1 - CLIP))
    terms = [np.ones(400), logit, np.maximum(logit - KNOTS[0], 0), np.maximum(logit - KNOTS[1], 0)]

    def at(c):
        return 1 / (1 + np.exp(-sum(a * term for a, term in zip(c, terms, strict=True))))

    start, h = np.array([-0.3, 0.4, 0.1, -0.1]), 1e-5
    base = evaluate(BINARY, columns, at(start))["a"]
    for i in range(4):
        moved = evaluate(BINARY, columns, at(start + h * np.eye(4)[i]))["a"]
        covariance = tuple(np.diag(np.eye(4)[i]).ravel())
        curve = ScoreCurve(tuple(start), covariance, KNOTS, 1, 1)
        for metric, each in evaluate(BINARY, columns, at(start), {(0, 0): curve})["a"].items():
            slope = (moved[metric].value - base[metric].value) / h
            assert each.from_fit == pytest.approx(slope**2, rel=1e-3, abs=1e-9), metric


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("rows", [0, 1, 50])
def test_one_class_and_no_rows(rows, p):
    columns = {"score": np.full(rows, p), "high": np.full(rows, True), "low": np.full(rows, False)}
    found = evaluate(BINARY, columns, np.full(rows, p)).get("a", {})
    assert not {"auc", "precision.low"} & set(found)
    assert rows == 0 or found["base_rate"] == Expected(p, 0, 0)
    assert rows == 0 or found["logloss"].value == pytest.approx(0, abs=1e-6)


def test_a_pipeline_may_name_its_columns_as_it_likes():
    rng = np.random.default_rng(4)
    names = ("n", "POS0", "value0", "s0", "f1", "auc0", 'it"s')
    spec = MetricSpec("binary", scores=("d0_0",), decisions=names)
    score = rng.random(200)
    columns = {"d0_0": score} | {name: score > 0.1 * (i + 1) for i, name in enumerate(names)}
    y = (rng.random(200) < score).astype(float)
    found = evaluate(spec, columns | {"bin": score, "y": score, "l": score}, y)["a"]
    measured = measure_arrays(spec, columns | {"pip_outcome": y}).metrics
    assert len(found) == 4 + 2 * len(names)
    for metric, each in found.items():
        assert each.value == pytest.approx(measured[metric].value, abs=1e-9), metric


def test_equal_scores_are_worth_a_half():
    columns = {"score": np.full(80, 0.3), "high": np.full(80, True), "low": np.full(80, False)}
    found = evaluate(BINARY, columns, np.full(80, 0.3))["a"]
    assert found["auc"].value == pytest.approx(0.5) and found["auc"].variance == pytest.approx(0, abs=1e-9)


def test_a_curve_is_fitted_whatever_the_counts():
    one = np.ones(1)
    constant = fit_curve(np.zeros(1), one * 1_000, one * 300)
    assert probability(constant, 0.0) == pytest.approx(0.3, abs=0.01)
    separable = fit_curve(np.linspace(-3, 3, 40), np.full(40, 10.0), np.where(np.arange(40) < 20, 0, 10.0))
    assert np.isfinite(separable.coefficients).all() and np.isfinite(separable.covariance).all()
    assert probability(separable, -3) < 0.05 < 0.95 < probability(separable, 3)
    nobody = fit_curve(np.linspace(-3, 3, 40), np.full(40, 10.0), np.zeros(40))
    assert probability(nobody, 0) < 0.02
    rng = np.random.default_rng(8)
    logits = np.round(rng.normal(size=20_000) * 2, 2)
    y = rng.random(20_000) < 1 / (1 + np.exp(-(logits / 2 + 0.5)))
    values, at = np.unique(logits, return_inverse=True)
    fitted = fit_curve(values, np.bincount(at).astype(float), np.bincount(at, y))
    for x in (-3.0, 0.0, 3.0):
        assert probability(fitted, x) == pytest.approx(1 / (1 + np.exp(-(x / 2 + 0.5))), abs=0.03)
    assert fitted.rows == 20_000 and fitted.positives == y.sum()
    row = duckdb.execute(f"SELECT {fitted.sql(logit_sql('0.25::DOUBLE'))}, {logit_sql('1.0::DOUBLE')}").fetchone()
    assert row[0] == pytest.approx(probability(fitted, np.log(0.25 / 0.75))) and np.isfinite(row[1])


def probability(curve, x):
    c, (low, high) = curve.coefficients, curve.knots
    return 1 / (1 + np.exp(-(c[0] + c[1] * x + c[2] * max(x - low, 0) + c[3] * max(x - high, 0))))


@pytest.mark.parametrize(
    ("spec", "outcome"),
    [
        (MetricSpec("regression"), lambda rng, mean: mean + rng.normal(size=len(mean))),
        (MetricSpec("count"), lambda rng, mean: rng.poisson(mean).astype(float)),
        (
            MetricSpec("count", power=1.5),
            lambda rng, mean: np.where(rng.random(len(mean)) < 0.5, 0, rng.gamma(2, mean)),
        ),
    ],
)
def test_losses_are_what_the_metrics_measure(spec, outcome):
    rng = np.random.default_rng(9)
    score = np.round(rng.gamma(3, 1, 500), 1) + 0.1
    y = outcome(rng, score)
    con = duckdb.connect(config={"threads": 1})
    con.register("t", pa.table({"partition_key": ["a"] * 500, "score": score, "pip_outcome": y}))
    losses = losses_sql(spec)
    measured = measure_arrays(spec, {"score": score, "pip_outcome": y}).metrics
    for metric, value in measured_losses(con, "t", losses)["a"].items():
        truth = measured[metric].value
        assert value == pytest.approx(truth**2 if metric == "rmse" else truth, abs=1e-9), metric
    table = make_table(con, "t", "score", losses, edges_of(con, "t", "score"))
    assert sum(table.rows) == 500 and min(table.rows) >= 25 and table.metrics == tuple(losses)
    of_table = expected_losses(table.rows, table)
    for metric, value in measured_losses(con, "t", losses)["a"].items():
        assert of_table[metric].value == pytest.approx(value, abs=1e-9), "of the labelled rows themselves"


def test_one_score_is_one_bin():
    con = duckdb.connect(config={"threads": 1})
    con.register("t", pa.table({"score": np.ones(500), "pip_outcome": np.arange(500.0)}))
    assert edges_of(con, "t", "score") == ()
    table = make_table(con, "t", "score", losses_sql(MetricSpec("regression")), ())
    assert table.rows == (500,) and beyond((30,), table) is None
    assert expected_losses((0,), table) == {}


def test_scores_beyond_those_of_the_labels_are_refused():
    table = LossTable((1.0, 2.0, 3.0), (100, 100, 100, 100), ("bias",), ((0.0,) * 4,), ((1.0,) * 4,))
    assert beyond((50, 50, 50, 50), table) is None
    assert "90% of the rows have scores in the highest bin" in (beyond((10, 5, 5, 180), table) or "")
    assert "lowest bin" in (beyond((180, 5, 5, 10), table) or "")
    assert beyond((1, 0, 0, 2), table) is None, "three rows say nothing"
    empty = LossTable((1.0,), (100, 0), ("bias",), ((0.0, 0.0),), ((1.0, 0.0),))
    assert expected_losses((5, 5), empty) == {}, "no label in that bin"


def test_bands_stay_where_the_metric_can_be():
    wide = Expected(0.5, 4.0, 0.0)
    assert (band("auc", wide, 0.0, 28).low, band("auc", wide, 0.0, 28).high) == (0.0, 1.0)
    assert band("precision.high", wide, 0.0, 28).high == 1.0
    assert band("logloss", wide, 0.0, 28).low == 0.0 and band("logloss", wide, 0.0, 28).high > 1
    assert band("bias", wide, 0.0, 28).low < 0
    assert band("rmse", Expected(4.0, 0.0, 0.0), 0.0, 28).value == 2.0
    narrow = band("auc", Expected(0.5, 1e-4, 0.0), 0.0, 28)
    assert band("auc", Expected(0.5, 1e-4, 0.0), 1e-4, 28).high > narrow.high


def test_the_record_of_estimates():
    assert record([]) == TrackRecord(0, 0, 0, 0)
    assert not record([1] * 9).withdrawn, "too few to say"
    assert record([0] * 8 + [1, 1]).withdrawn is False and record([0] * 7 + [1, -1, 1]).withdrawn
    assert record([1] * 100 + [0] * TRAILING) == TrackRecord(TRAILING, TRAILING, 0, 0), "the old ones no longer count"
    assert record([1, 0, 1, 1, 0, 1]).runs and not record([1, 1, 1, 0, 0, 0, 0, 1]).runs
    assert not record([1, 1, -1, -1, 1]).runs, "on both sides"
    assert not record([-1, -1, -1, -1, 0]).runs, "the newest held"
