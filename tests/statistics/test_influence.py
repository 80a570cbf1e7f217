"""Metrics and influence functions against slow references: pairs counted one by one, weights moved one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pip_dagster.errors import DeclarationError
from pip_dagster.statistics.influence import MULTICLASS, base_value, influence, scarce_outcomes

METRICS = ("auc", "logloss", "rmse", "poisson_deviance", "multi_logloss", "accuracy", "macro_f1", "ovr_auc", "mean")
CLASSES = 3


def pairs_auc(y: np.ndarray, scores: np.ndarray, w: np.ndarray) -> float:
    """Every pair of a positive and a negative, ties half, each weighted by both rows."""
    right = total = 0.0
    for i in np.flatnonzero(y == 1):
        for j in np.flatnonzero(y == 0):
            right += w[i] * w[j] * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
            total += w[i] * w[j]
    return right / total


def f1(y: np.ndarray, predicted: np.ndarray, code: int, w: np.ndarray) -> float:
    right = w[(y == code) & (predicted == code)].sum()
    return 2 * right / (w[y == code].sum() + w[predicted == code].sum())


def reference(metric: str, y: np.ndarray, s: np.ndarray, w: np.ndarray) -> float:
    """The textbook's formula of the metric, on rows with weights `w`."""
    codes = np.unique(y).astype(int)
    if metric == "auc":
        return pairs_auc(y, s, w)
    if metric == "ovr_auc":
        return float(np.mean([pairs_auc((y == c).astype(int), s[:, c], w) for c in codes]))
    if metric == "macro_f1":
        return float(np.mean([f1(y, s.argmax(axis=1), c, w) for c in codes]))
    if metric == "rmse":
        return float(np.sqrt(np.average((y - s) ** 2, weights=w)))
    terms = {
        "logloss": lambda: [-np.log(p if outcome else 1 - p) for outcome, p in zip(y, s, strict=True)],
        "poisson_deviance": lambda: [2 * ((o * np.log(o / m) if o else 0) - o + m) for o, m in zip(y, s, strict=True)],
        "multi_logloss": lambda: [-np.log(row[int(code)]) for code, row in zip(y, s, strict=True)],
        "accuracy": lambda: [float(row.argmax() == code) for code, row in zip(y, s, strict=True)],
        "mean": lambda: y,
    }[metric]()
    return float(np.average(terms, weights=w))


def example(metric: str, rng: np.random.Generator, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    if metric in MULTICLASS:
        s = np.round(rng.dirichlet(np.ones(CLASSES), n), 2) + 0.01
        return rng.integers(0, CLASSES, n), s / s.sum(axis=1, keepdims=True)
    if metric in ("auc", "logloss"):
        return (rng.random(n) < 0.4).astype(float), np.round(rng.uniform(0.05, 0.95, n), 1)
    return rng.poisson(1.5, n).astype(float), rng.uniform(0.2, 3, n)


@pytest.mark.parametrize("metric", METRICS)
def test_value_and_influence_are_those_of_the_definition(metric: str) -> None:
    """The influence of a row is the derivative of the metric when its weight grows: here by finite differences."""
    y, s = example(metric, np.random.default_rng(3))
    found = influence(metric, y, s)
    n = len(y)
    assert found is not None
    assert found.value == pytest.approx(reference(metric, y, s, np.ones(n)), abs=1e-12)
    assert found.psi.mean() == pytest.approx(0, abs=1e-12)
    step = 1e-5
    for row in range(n):
        up, down = (np.ones(n) + sign * step * (np.arange(n) == row) for sign in (1, -1))
        slope = (reference(metric, y, s, up) - reference(metric, y, s, down)) / (2 * step)
        assert found.psi[row] / n == pytest.approx(slope, abs=1e-8)


few = st.lists(st.tuples(st.integers(0, 1), st.integers(-2, 3)), min_size=1, max_size=30)


@settings(max_examples=80, deadline=None)
@given(few)
def test_auc_is_the_share_of_pairs_in_order_with_ties_half(rows: list[tuple[int, int]]) -> None:
    y, s = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    found = influence("auc", y, s)
    if len(set(y)) == 1:
        assert found is None
        return
    assert found is not None
    assert found.value == pytest.approx(pairs_auc(y, s, np.ones(len(y))), abs=1e-12)
    reversed_ = influence("auc", 1 - y, s)
    assert reversed_ is not None and reversed_.value == pytest.approx(1 - found.value, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(METRICS), st.integers(0, 10_000))
def test_the_order_of_rows_does_not_matter(metric: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, s = example(metric, rng)
    at = rng.permutation(len(y))
    one, two = influence(metric, y, s), influence(metric, y[at], s[at])
    if one is None:
        assert two is None
        return
    assert two is not None
    assert two.value == pytest.approx(one.value, abs=1e-12)
    assert two.psi == pytest.approx(one.psi[at], abs=1e-9)


def test_a_monotone_change_of_scores_does_not_change_auc() -> None:
    y, s = example("auc", np.random.default_rng(1))
    one, two = influence("auc", y, s), influence("auc", y, np.exp(7 * s) - 3)
    assert one and two and one.value == two.value and (one.psi == two.psi).all()


def test_float32_scores_of_zero_and_one_have_a_finite_log_loss() -> None:
    found = influence("logloss", np.array([1.0, 0.0]), np.array([0.0, 1.0], np.float32))
    assert found and np.isfinite(found.value) and found.value > 15


@pytest.mark.parametrize("metric", METRICS)
def test_no_rows_have_no_value(metric: str) -> None:
    assert influence(metric, np.empty(0), np.empty((0, CLASSES) if metric in MULTICLASS else 0)) is None


def test_constant_scores_have_an_auc_of_a_half_and_no_influence() -> None:
    found = influence("auc", np.array([1.0, 0, 0, 1]), np.full(4, 0.3))
    assert found and found.value == 0.5 and (found.psi == 0).all()


def test_a_model_without_error_has_an_rmse_of_zero() -> None:
    found = influence("rmse", np.arange(4.0), np.arange(4.0))
    assert found and found.value == 0 and (found.psi == 0).all()


@pytest.mark.parametrize(
    ("metric", "y", "scores", "said"),
    [
        ("auc", [0, 1], [0.1, np.nan], "1 scores are NaN"),
        ("rmse", [0, np.nan], [0.1, 0.2], "1 outcomes are NaN"),
        ("rmse", [0, 1], [0.1, np.inf], "1 scores are NaN or infinite"),
        ("mean", [0, np.nan], [0, 0], "1 outcomes are NaN"),
        ("auc", [0, 2], [0.1, 0.2], "outcomes 0 and 1"),
        ("logloss", [0, 1], [0.1, 1.2], "probabilities"),
        ("poisson_deviance", [0, -1], [0.1, 0.2], "0 or more"),
        ("poisson_deviance", [0, 1], [0.1, -0.2], "0 or more"),
        ("accuracy", [0, 1], [0.1, 0.2], r"\(rows, classes\)"),
        ("auc", [0, 1], [[0.1, 0.2], [0.3, 0.4]], r"scores \(rows,\)"),
        ("accuracy", [0, 2], [[0.1, 0.9], [0.3, 0.7]], "class codes 0 to 1"),
        ("accuracy", [0, 0.5], [[0.1, 0.9], [0.3, 0.7]], "class codes 0 to 1"),
        ("accuracy", [0, -1], [[0.1, 0.9], [0.3, 0.7]], "class codes 0 to 1"),
        ("multi_logloss", [0, 1], [[0.1, 0.2], [0.3, 0.7]], "add up to 1"),
        ("auc", [0, 1], [0.1], "found"),
    ],
)
def test_what_a_metric_is_not_for_is_refused(metric: str, y: list, scores: list, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        influence(metric, np.array(y, float), np.array(scores))


def test_base_values_are_those_of_a_model_that_knows_only_the_shares() -> None:
    y = np.array([0.0] * 6 + [1.0] * 3 + [2.0])
    shares = np.array([0.6, 0.3, 0.1])
    constant = np.tile(shares, (10, 1))
    for metric in ("multi_logloss", "accuracy", "macro_f1", "ovr_auc"):
        found = influence(metric, y, constant)
        assert found and base_value(metric, y) == pytest.approx(found.value)
    for metric in ("rmse", "poisson_deviance"):
        found = influence(metric, y, np.full(10, y.mean()))
        assert found and base_value(metric, y) == pytest.approx(found.value)
    binary = np.array([0.0] * 7 + [1.0] * 3)
    for metric in ("auc", "logloss"):
        found = influence(metric, binary, np.full(10, 0.3))
        assert found and base_value(metric, binary) == pytest.approx(found.value)
    for constant_outcomes in (np.zeros(5), np.full(7, 0.1)):
        assert base_value("poisson_deviance", constant_outcomes) == base_value("rmse", constant_outcomes) == 0


def test_scarce_outcomes_are_counted_in_rows_and_units() -> None:
    y, unit = np.array([1.0, 1, 1, 0, 0, 0, 0, 0]), np.array([0, 0, 0, 1, 2, 3, 4, 5])
    assert scarce_outcomes("auc", y, unit) == (3, 1)
    assert scarce_outcomes("logloss", y, unit) == (3, 6)
    assert scarce_outcomes("rmse", y, unit) == (8, 6)
    assert scarce_outcomes("poisson_deviance", y, unit) == (3, 6)
    codes = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    assert scarce_outcomes("macro_f1", codes, unit) == (1, 1)
    assert scarce_outcomes("accuracy", codes, unit) == (4, 6)
    assert scarce_outcomes("auc", np.ones(8), unit) == (0, 0)
    assert scarce_outcomes("auc", np.empty(0), np.empty(0)) == (0, 0)
