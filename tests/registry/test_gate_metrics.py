"""Metrics and their intervals, against the slow and obvious way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pip_dagster.errors import DeclarationError
from pip_dagster.statistics.metrics import compare


def obvious_auc(y: np.ndarray, scores: np.ndarray) -> float:
    pairs = [(p > n) + (p == n) / 2 for p in scores[y == 1] for n in scores[y == 0]]
    return float(np.mean(pairs))


rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=40)


@settings(max_examples=60, deadline=None)
@given(rows)
def test_auc_counts_pairs_and_ties_half(found: list[tuple[int, int, int]]) -> None:
    y, a, b = (np.array(column, dtype=float) for column in zip(*found, strict=True))
    compared = compare("auc", y, a, b, 0.95)
    if len(set(y)) == 1:
        assert compared is None
        return
    assert compared is not None
    assert compared.champion == pytest.approx(obvious_auc(y, a))
    assert compared.candidate == pytest.approx(obvious_auc(y, b))
    assert compared.gain == pytest.approx(compared.candidate - compared.champion)


def test_losses_are_the_textbooks_and_a_smaller_one_is_a_gain() -> None:
    y, a, b = np.array([0.0, 1.0, 1.0]), np.array([0.5, 0.5, 0.5]), np.array([0.1, 0.8, 0.9])
    logloss = compare("logloss", y, a, b, 0.95)
    assert logloss and logloss.champion == pytest.approx(np.log(2))
    assert logloss.candidate == pytest.approx(-np.mean(np.log([0.9, 0.8, 0.9])))
    assert logloss.gain > 0
    rmse = compare("rmse", y, a, b, 0.95)
    assert rmse and rmse.champion == pytest.approx(0.5)
    counts, means = np.array([0.0, 2.0]), np.array([1.0, 1.0])
    deviance = compare("poisson_deviance", counts, means, np.array([0.5, 2.0]), 0.95)
    assert deviance and deviance.champion == pytest.approx(np.mean([2.0, 2 * (2 * np.log(2) - 2 + 1)]))
    assert deviance.candidate == pytest.approx(np.mean([1.0, 0.0]))


def test_the_interval_is_the_same_every_time_and_narrows_with_rows() -> None:
    rng = np.random.default_rng(1)
    y = (rng.random(4_000) < 0.3).astype(float)
    a, b = y + rng.normal(size=4_000) * 2, y + rng.normal(size=4_000)
    whole, few = compare("auc", y, a, b, 0.95), compare("auc", y[:400], a[:400], b[:400], 0.95)
    assert whole == compare("auc", y, a, b, 0.95)
    assert whole and few and whole.low < whole.gain < whole.high
    assert few.high - few.low > 2 * (whole.high - whole.low)


@pytest.mark.parametrize("metric", ["auc", "rmse"])
def test_intervals_hold_the_true_difference_about_as_often_as_they_say(metric: str) -> None:
    inside = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        y = (rng.random(300) < 0.4).astype(float)
        a, b = (y + rng.normal(size=300) for _ in range(2))  # equally good: the true difference is 0
        found = compare(metric, y, a, b, 0.9)  # type: ignore[arg-type]
        assert found
        inside += found.low <= 0 <= found.high
    assert 46 <= inside <= 60  # 54 are expected


def test_many_rows_are_compared_in_bounded_memory() -> None:
    rng = np.random.default_rng(1)
    y = (rng.random(250_000) < 0.3).astype(float)
    found = compare("rmse", y, rng.random(250_000), y * 0.5, 0.95)
    assert found and found.rows == 250_000
    assert found.low < found.gain < found.high


def test_what_a_metric_is_not_for_is_refused() -> None:
    y = np.array([0.0, 2.0])
    with pytest.raises(DeclarationError, match="0 and 1"):
        compare("auc", y, y, y, 0.95)
    with pytest.raises(DeclarationError, match="probabilities"):
        compare("logloss", np.array([0.0, 1.0]), np.array([0.0, 2.0]), np.array([0.0, 1.0]), 0.95)
    with pytest.raises(DeclarationError, match="0 and more"):
        compare("poisson_deviance", -y, y, y, 0.95)
