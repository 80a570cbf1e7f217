"""A model file with a number that is NaN or infinite is refused, whether or not a row of the sample reaches it."""

import json

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from pip_dagster.errors import RegistryError
from pip_dagster.registry import InvalidModel, Registry
from pip_dagster.registry.engines.xgboost.trees import check_trees


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"x": rng.normal(size=200), "y": rng.normal(size=200)})
    return frame, frame.x + frame.y.abs()


def spoiled(sample, tmp_path, path, value, **parameters):
    """A model whose JSON has `value` at `path`, below the learner."""
    frame, label = sample
    booster = xgb.train({"nthread": 1, "max_depth": 2} | parameters, xgb.DMatrix(frame, label=label), 3)
    document = json.loads(bytes(booster.save_raw("json")))
    node = document["learner"]
    for step in path[:-1]:
        node = node[step]
    assert node[path[-1]] is not None
    node[path[-1]] = value
    file = tmp_path / "spoiled.json"
    file.write_text(json.dumps(document))
    return file


TREES = ("gradient_booster", "model", "trees", 1)
LINEAR = ("gradient_booster", "model", "weights", 0)
FAULTS = {
    "a leaf": ((*TREES, "split_conditions", -1), "a leaf of tree 1", {}),
    "a threshold": ((*TREES, "split_conditions", 0), "a threshold of tree 1", {}),
    "a weight": (LINEAR, "a weight of its linear model", {"booster": "gblinear"}),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_number_that_is_not_finite_is_refused_and_named(sample, tmp_path, fault, value):
    path, named, parameters = FAULTS[fault]
    file = spoiled(sample, tmp_path, path, value, **parameters)
    with pytest.raises(InvalidModel, match=named):
        Registry(tmp_path / "r").register("m", model=file, sample=sample[0])
    assert not list((tmp_path / "r").glob("m/versions/*"))


@pytest.mark.parametrize("value", ["-Infinity", "1e999", "[NaN]"])
def test_a_base_score_that_is_not_finite_is_refused(sample, tmp_path, value):
    file = spoiled(sample, tmp_path, ("learner_model_param", "base_score"), value)
    with pytest.raises(InvalidModel):
        Registry(tmp_path / "r").register("m", model=file, sample=sample[0])


def test_a_threshold_of_minus_infinity_parts_missing_from_present(sample, tmp_path):
    file = spoiled(sample, tmp_path, (*TREES, "split_conditions", 0), float("-inf"))
    check_trees(xgb.Booster(model_file=file))


def test_a_calibration_that_gives_no_number_is_refused(sample, tmp_path):
    frame, label = sample
    booster = xgb.train({"nthread": 1}, xgb.DMatrix(frame, label=label), 3)
    booster.save_model(tmp_path / "m.ubj")
    platt = {"method": "platt", "slope": 1.0, "intercept": 0.0}  # of scores beyond 0 to 1
    with pytest.raises(InvalidModel, match="calibrated scores on the sample are NaN"):
        Registry(tmp_path / "r").register("m", model=tmp_path / "m.ubj", sample=frame, calibration=platt)
    huge = {"method": "isotonic", "x": [0.0, 1.0], "y": [0.0, 1e300]}  # beyond float32
    with pytest.raises(InvalidModel, match="calibrated scores on the sample are NaN"):
        Registry(tmp_path / "r").register("m", model=tmp_path / "m.ubj", sample=frame, calibration=huge)


@pytest.mark.parametrize(
    "statements",
    [
        {"metrics": {"auc": float("nan")}},
        {"calibration": {"method": "platt", "slope": float("inf"), "intercept": 0.0}},
        {"calibration": {"method": "isotonic", "x": [0.0, 1.0], "y": [0.0, float("nan")]}},
    ],
)
def test_a_statement_that_is_not_finite_is_refused(sample, tmp_path, statements):
    booster = xgb.train({"nthread": 1}, xgb.DMatrix(sample[0], label=sample[1]), 1)
    booster.save_model(tmp_path / "m.ubj")
    with pytest.raises(RegistryError, match="finite"):
        Registry(tmp_path / "r").register("m", model=tmp_path / "m.ubj", sample=sample[0], **statements)
