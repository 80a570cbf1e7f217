"""Trees with numeric splits only score as XGBoost scores the original, to the bit, whatever the trees and the rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from pip_dagster.registry.engines.xgboost import chains, numeric_splits
from pip_dagster.registry.engines.xgboost import predictor as predictor_module
from pip_dagster.registry.engines.xgboost.numeric_splits import NumericSplits

# Numbers at which a comparison, a cast or a stand-in for a missing value could go wrong.
EDGES = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 3.4e38, -3.4e38, 1e-45, -1.0, 2.5, 1e9], dtype=np.float32)


def trained(seed: int, categories: list[int], numbers: int, missing: float, rounds: int = 8, **parameters: object):
    """A Booster whose first features are categories, with gaps everywhere, and rows as it was trained on."""
    rng = np.random.default_rng(seed)
    codes = [rng.integers(0, size, 400).astype(np.float32) for size in categories]
    X = np.column_stack([*codes, *(rng.normal(size=400).astype(np.float32) for _ in range(numbers))])
    effect = sum((rng.normal(size=size)[code.astype(int)] for size, code in zip(categories, codes, strict=True)), 0.0)
    label = effect + X[:, len(categories) :].sum(axis=1) + rng.normal(size=400)
    X[rng.random(X.shape) < missing] = np.nan
    if "num_class" in parameters:
        label = np.digitize(label, np.quantile(label, [0.3, 0.6]))
    kinds = ["c"] * len(categories) + ["float"] * numbers
    matrix = xgb.DMatrix(X, label, feature_types=kinds, enable_categorical=True)
    return xgb.train({"nthread": 1, "seed": seed, "verbosity": 0} | parameters, matrix, rounds), X


def rows_for(X: np.ndarray, seed: int, count: int = 300) -> np.ndarray:
    """Rows like those of training, with other codes than it knew, fractions, infinities and gaps among them."""
    rng = np.random.default_rng(seed)
    rows = X[rng.integers(0, len(X), count)].copy()
    odd = rng.random(rows.shape) < 0.15
    rows[odd] = rng.choice(EDGES, odd.sum())
    return rows


def same(booster: xgb.Booster, made: NumericSplits, rows: np.ndarray, rounds: tuple[int, int] = (0, 0)) -> None:
    for kind in ("value", "margin"):
        ours = made.predict(rows, iteration_range=rounds, predict_type=kind)
        xgboosts = booster.inplace_predict(rows, iteration_range=rounds, predict_type=kind, missing=np.nan)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, xgboosts)


@given(
    seed=st.integers(0, 10**6),
    categories=st.lists(st.integers(1, 12), max_size=3),
    numbers=st.integers(0, 3),
    missing=st.sampled_from([0.0, 0.1, 0.7]),
    onehot=st.sampled_from([1, 4, 100]),
    depth=st.integers(1, 6),
    rounds=st.integers(1, 12),
    classes=st.booleans(),
    chains_a_tree=st.sampled_from([1, 100]),
    pruned=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_booster_scores_as_before(
    seed, categories, numbers, missing, onehot, depth, rounds, classes, chains_a_tree, pruned
):
    categories = categories or [] if numbers else [*categories, 5]
    several = {"objective": "multi:softprob", "num_class": 3} if classes else {}
    if pruned:  # nodes that are there no more; the exact method knows no categories
        numbers, categories, several = max(1, numbers), [], several | {"tree_method": "exact", "gamma": 1.0}
    booster, X = trained(
        seed, categories, numbers, missing, rounds, max_depth=depth, max_cat_to_onehot=onehot, **several
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numeric_splits, "_MOST_CHAINS_A_TREE", chains_a_tree)
        made = NumericSplits.of(booster, 2)
    if made is None:
        assert all(len(tree["left_children"]) == 1 for tree in trees_of(booster))  # no split at all
        return
    rows = rows_for(X, seed + 1)
    same(booster, made, rows)
    same(booster, made, rows, (0, max(1, rounds // 2)))


def trees_of(booster: xgb.Booster) -> list[dict]:
    return json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]["model"]["trees"]


def test_categories_become_thresholds_and_the_booster_has_none(monkeypatch):
    monkeypatch.setattr(numeric_splits, "_ROWS", 64)  # several parts for the threads
    booster, X = trained(3, [8, 3], 2, 0.2, rounds=60, max_depth=6, max_cat_to_onehot=1)
    assert any(tree["categories"] for tree in trees_of(booster))
    made = NumericSplits.of(booster, 2)
    assert made is not None
    assert not any(tree["categories"] or any(tree["split_type"]) for tree in trees_of(made._booster))
    same(booster, made, rows_for(X, 4, 1000))


@pytest.mark.parametrize("limit", ["_MOST_SETS", "_MOST_CODES"])
def test_categories_stay_where_chains_would_take_too_long(monkeypatch, limit):
    monkeypatch.setattr(chains, limit, 1)
    booster, X = trained(5, [8, 3], 2, 0.2)
    made = NumericSplits.of(booster, 2)
    assert made is not None
    assert any(tree["categories"] for tree in trees_of(made._booster))
    same(booster, made, rows_for(X, 6))


def test_more_columns_than_trees_are_not_made():
    booster, X = trained(7, [40], 1, 0.0, rounds=2, max_depth=8, max_cat_to_onehot=1)
    made = NumericSplits.of(booster, 1)
    assert made is not None
    assert made._width <= 2 + 2
    same(booster, made, rows_for(X, 8))


def test_the_fewest_chains_cover_all_sets():
    held = np.array(
        [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]], dtype=np.float32
    )
    found = chains._cover(held)
    assert len(found) == 3  # {0}, {1}, {3} hold nothing of each other
    assert sorted(row for chain in found for row in chain) == list(range(6))
    for chain in found:
        assert all((held[a] <= held[b]).all() for a, b in zip(chain, chain[1:], strict=False))


@pytest.mark.parametrize(
    "parameters",
    [
        {"booster": "dart", "rate_drop": 0.5, "one_drop": 1},
        {"booster": "gblinear"},
        {"multi_strategy": "multi_output_tree"},
    ],
)
def test_other_kinds_are_left_to_xgboost(parameters):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(100, 3))
    label = X if "multi_strategy" in parameters else X[:, 0]
    booster = xgb.train({"verbosity": 0, "nthread": 1} | parameters, xgb.DMatrix(X, label), 3)
    assert NumericSplits.of(booster, 1) is None


def test_scores_that_differ_are_told_and_not_used(monkeypatch, train, wrap, frame, label):
    monkeypatch.setattr(predictor_module, "_MANY_ROWS", 1)
    monkeypatch.setattr(numeric_splits, "_STAND_INS", (float("inf"), float("-inf"), float("nan")))
    booster = train(frame, label)
    predictor = wrap(booster, frame)
    X = np.full((50, 4), np.nan, dtype=np.float32)
    with pytest.warns(UserWarning, match="please report"):
        scores = predictor.predict(X)
    np.testing.assert_array_equal(scores, booster.inplace_predict(X, missing=np.nan))
    assert predictor._numeric is None


def test_rows_that_gain_nothing_are_left_to_xgboost():
    booster, X = trained(9, [], 3, 0.3)
    made = NumericSplits.of(booster, 1)
    assert made is not None
    assert made.faster(X)
    assert not made.faster(np.nan_to_num(X))


def test_what_cannot_be_made_is_told_and_xgboost_scores_it(monkeypatch, train, wrap, frame, label):
    monkeypatch.setattr(predictor_module, "_MANY_ROWS", 1)
    monkeypatch.setattr(NumericSplits, "of", lambda *_: {}["a key that a later XGBoost leaves out"])
    booster = train(frame, label)
    X = np.full((50, 4), np.nan, dtype=np.float32)
    predictor = wrap(booster, frame)
    with pytest.warns(UserWarning, match="a key that a later XGBoost leaves out"):
        scores = predictor.predict(X)
    np.testing.assert_array_equal(scores, booster.inplace_predict(X, missing=np.nan))


def test_a_model_too_large_for_it_is_left_to_xgboost(monkeypatch):
    monkeypatch.setattr(numeric_splits, "_LARGEST", 1000)
    booster, _ = trained(10, [3], 1, 0.1)
    assert NumericSplits.of(booster, 1) is None
