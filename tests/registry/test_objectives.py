"""Every kind of Booster scores through the Predictor exactly as XGBoost scores the training frame."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost as xgb

from pip_dagster.registry import InvalidModel, SignatureMismatch
from pip_dagster.registry.encoding import encode
from pip_dagster.registry.engines.xgboost import predictor as predictor_module


def _score(predictor: Any, frame: pd.DataFrame) -> np.ndarray:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return predictor.predict(encode(table, predictor.signature))


@pytest.mark.parametrize(
    ("objective", "outputs", "extra"),
    [
        ("binary:logistic", ("score",), {}),
        ("reg:squarederror", ("score",), {}),
        ("count:poisson", ("score",), {}),
        ("reg:tweedie", ("score",), {}),
        ("reg:gamma", ("score",), {}),
        ("rank:ndcg", ("score",), {"group": [100, 100, 100]}),
        ("reg:quantileerror", ("score_0", "score_1", "score_2"), {"quantile_alpha": [0.1, 0.5, 0.9]}),
        ("reg:quantileerror", ("score",), {"quantile_alpha": [0.5]}),
        ("multi:softprob", ("score_0", "score_1", "score_2"), {"num_class": 3}),
        ("binary:logistic", ("score",), {"num_parallel_tree": 3, "colsample_bynode": 0.5}),
        ("binary:logistic", ("score",), {"booster": "dart", "rate_drop": 0.5, "one_drop": 1}),
    ],
)
@pytest.mark.parametrize("many_rows", [1, 100_000], ids=["numeric splits", "as it is"])
def test_scores_are_xgboosts_own(train, wrap, frame, objective, outputs, extra, many_rows, monkeypatch):
    monkeypatch.setattr(predictor_module, "_MANY_ROWS", many_rows)
    target = frame.stops.clip(1, 3) - 1 if objective.startswith(("multi", "binary")) else frame.stops + 1
    target = target.clip(0, 1) if objective.startswith("binary") else target
    booster = train(frame, target, objective=objective, **extra)
    predictor = wrap(booster, frame)
    assert predictor.signature.outputs == outputs
    assert predictor.signature.objective == objective
    scores = _score(predictor, frame)
    expected = booster.predict(xgb.DMatrix(frame, enable_categorical=True))
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, expected)
    assert (predictor._numeric is not None) == (many_rows == 1 and extra.get("booster") != "dart")
    assert predictor.predict(np.empty((0, 4), dtype=np.float32)).shape == (0, *expected.shape[1:])


@pytest.mark.parametrize("many_rows", [1, 100_000], ids=["numeric splits", "as it is"])
def test_softmax_is_scored_as_probabilities(train, wrap, frame, many_rows, monkeypatch):
    monkeypatch.setattr(predictor_module, "_MANY_ROWS", many_rows)
    target = frame.stops % 3
    hard = train(frame, target, objective="multi:softmax", num_class=3)
    soft = train(frame, target, objective="multi:softprob", num_class=3)
    predictor = wrap(hard, frame, classes=["none", "one", "two"])
    assert predictor.signature.outputs == ("score_none", "score_one", "score_two")
    assert predictor.signature.objective == "multi:softmax"
    scores = _score(predictor, frame)
    matrix = xgb.DMatrix(frame, enable_categorical=True)
    np.testing.assert_array_equal(scores, soft.predict(matrix))
    np.testing.assert_array_equal(scores.argmax(axis=1), hard.predict(matrix))


@pytest.mark.filterwarnings("ignore:.*gblinear")
def test_linear_boosters_score_through_a_dmatrix(train, wrap, frame, label):
    numbers = frame[["distance", "stops", "night"]]
    booster = train(numbers, label, booster="gblinear", objective="binary:logistic")
    predictor = wrap(booster, numbers)
    assert predictor.signature.booster == "gblinear"
    np.testing.assert_array_equal(_score(predictor, numbers), booster.predict(xgb.DMatrix(numbers)))


@pytest.mark.parametrize("strategy", ["multi_output_tree", "one_output_per_tree"])
def test_several_targets_have_numbered_outputs(train, wrap, frame, strategy):
    numbers = frame[["distance", "stops", "night"]]
    target = np.column_stack([frame.stops, frame.night])
    booster = train(numbers, target, objective="reg:squarederror", multi_strategy=strategy)
    predictor = wrap(booster, numbers)
    assert predictor.signature.outputs == ("score_0", "score_1")
    np.testing.assert_array_equal(_score(predictor, numbers), booster.predict(xgb.DMatrix(numbers)))


def test_early_stopping_sets_the_rounds_used(wrap, frame, label):
    data = xgb.DMatrix(frame, label=label, enable_categorical=True)
    other = xgb.DMatrix(frame, label=label[::-1], enable_categorical=True)
    parameters = {"objective": "binary:logistic", "nthread": 1, "eta": 1.0}
    booster = xgb.train(parameters, data, 30, evals=[(other, "v")], early_stopping_rounds=3, verbose_eval=False)
    best = booster.best_iteration
    assert best + 1 < booster.num_boosted_rounds()
    predictor = wrap(booster, frame)
    assert predictor.signature.iteration_range == (0, best + 1)
    np.testing.assert_array_equal(_score(predictor, frame), booster.predict(data, iteration_range=(0, best + 1)))
    booster.set_attr(best_iteration="99")
    with pytest.raises(InvalidModel, match="best iteration is 99, but it has"):
        wrap(booster, frame)


def test_without_early_stopping_all_rounds_are_used(wrap, booster, frame):
    assert wrap(booster, frame).signature.iteration_range == (0, 6)


def test_a_booster_without_trees_is_refused(train, wrap, frame, label):
    with pytest.raises(InvalidModel, match="no boosting rounds"):
        wrap(train(frame, label, rounds=0, objective="binary:logistic"), frame)


@pytest.mark.parametrize(
    ("classes", "message"),
    [(["late"], "1 classes are given, objective binary:logistic has 2"), (["late", "LATE"], "must be distinct")],
)
def test_wrong_class_labels_are_refused(wrap, booster, frame, classes, message):
    with pytest.raises(SignatureMismatch, match=message):
        wrap(booster, frame, classes=classes)


def test_a_matrix_of_another_width_is_refused(wrap, booster, frame):
    with pytest.raises(SignatureMismatch, match=r"\(rows, 4\), got \(2, 3\)"):
        wrap(booster, frame).predict(np.zeros((2, 3), dtype=np.float32))
