"""What training knew and the model file does not say: found by the scores that training computed, or declared."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost as xgb

from pip_dagster.errors import RegistryError
from pip_dagster.registry import InvalidSample, Registry, SignatureMismatch
from pip_dagster.registry.encoding import encode
from pip_dagster.registry.golden import largest_difference
from pip_dagster.registry.load import load_predictor


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(4)
    x = rng.normal(size=300)
    x[::5] = -999
    shop = pd.Categorical(rng.choice(["b", "a", "c"], 300), categories=["b", "a", "c"])
    return pd.DataFrame({"x": x, "y": rng.normal(size=300), "shop": shop, "exposure": rng.uniform(0.1, 2, 300)})


FEATURES = ["x", "y", "shop"]


def label(frame):
    return frame.exposure * (1 + frame.y.abs() + (frame.x == -999) * 2 + (frame["shop"] == "a"))


class Trained:
    """A model as a training program has it, and its registration."""

    def __init__(self, frame, tmp_path, objective="count:poisson", rounds=6, target=None, **matrix):
        self.frame, self.registry = frame, Registry(tmp_path / "r")
        data = xgb.DMatrix(
            frame[FEATURES], label=label(frame) if target is None else target, enable_categorical=True, **matrix
        )
        parameters = {"objective": objective, "nthread": 1, "max_depth": 3}
        if objective.startswith("multi"):
            parameters["num_class"] = 3
        self.booster, self.data = xgb.train(parameters, data, rounds), data
        self.scores = self.booster.predict(data)
        self.file = tmp_path / "m.ubj"
        self.booster.save_model(self.file)

    def register(self, scores=None, sample=None, **statements):
        sample = self.frame if sample is None else sample
        scores = self.scores if scores is None else scores
        return self.registry.register("m", model=self.file, sample=sample, training_scores=scores, **statements)


class TestAnEqualModel:
    @pytest.mark.parametrize("how", ["an array", "a column", "a file"])
    def test_is_recorded_as_verified(self, frame, tmp_path, how):
        trained = Trained(frame, tmp_path)
        scores, sample = trained.scores, frame
        if how == "a column":
            sample, scores = frame.assign(trained=trained.scores), "trained"
        elif how == "a file":
            scores = tmp_path / "scores.parquet"
            pd.DataFrame({"score": trained.scores}).to_parquet(scores)
        version = trained.register(scores, sample)
        assert version.manifest.training_check.rows == 300
        assert version.manifest.verified.startswith("verified against training on 300 rows")

    def test_without_scores_is_not_verified_and_its_manifest_has_no_new_key(self, frame, tmp_path):
        trained = Trained(frame, tmp_path)
        version = trained.registry.register("m", model=trained.file, sample=frame)
        assert version.manifest.verified == "not verified against training"
        stored = json.loads((version.path / "manifest.json").read_bytes())
        assert not {"missing", "offset", "training_check"} & stored.keys()
        later = trained.register()
        assert (later.version, later.created) == (2, True), "verified later, it is a version of its own"
        assert trained.registry.register("m", model=trained.file, sample=frame).version in (1, 2)

    @pytest.mark.parametrize("how", ["columns", "a list column", "classes"])
    def test_of_several_classes(self, frame, tmp_path, how):
        target = np.arange(300) % 3 + 0.0
        trained = Trained(frame, tmp_path, "multi:softmax" if how == "classes" else "multi:softprob", target=target)
        sample, scores = frame.copy(), "s"
        if how == "columns":
            scores = ["s0", "s1", "s2"]
            sample[scores] = trained.scores
        else:
            sample["s"] = list(trained.scores)
        assert trained.register(scores, sample).manifest.training_check


class TestADifferentModel:
    def refused(self, trained, *words, **register):
        with pytest.raises(SignatureMismatch) as caught:
            trained.register(**register)
        for word in ("rows of the sample differ by more than 1e-05", "in training", *words):
            assert word in str(caught.value)
        assert not trained.registry.models()

    def test_of_a_missing_sentinel(self, frame, tmp_path):
        self.refused(Trained(frame, tmp_path, missing=-999), "--missing=-999")

    def test_of_a_sentinel_that_is_a_code_of_a_category(self, frame, tmp_path):
        target = frame["shop"].isin(["a", "b"]) * 3.0  # b is code 0
        self.refused(Trained(frame, tmp_path, "reg:squarederror", target=target, missing=0), "--missing=0")

    @pytest.mark.parametrize("objective", ["count:poisson", "reg:squarederror", "binary:logistic"])
    def test_of_an_offset(self, frame, tmp_path, objective):
        target = (label(frame) > 1.5) + 0.0 if objective == "binary:logistic" else None
        margin = np.log(frame.exposure)
        self.refused(Trained(frame, tmp_path, objective, target=target, base_margin=margin), "log(exposure)")

    def test_of_a_constant_offset(self, frame, tmp_path):
        self.refused(Trained(frame, tmp_path, base_margin=np.full(300, 1.25)), "constant base margin of 1.25")

    def test_of_margins(self, frame, tmp_path):
        trained = Trained(frame, tmp_path)
        margins = trained.booster.predict(trained.data, output_margin=True)
        self.refused(trained, "output_margin", scores=margins)

    def test_of_the_rounds(self, frame, tmp_path):
        trained = Trained(frame, tmp_path)
        four = trained.booster.predict(trained.data, iteration_range=(0, 4))
        self.refused(trained, "first 4 of the rounds", scores=four)
        trained.booster.set_attr(best_iteration="3")
        trained.booster.save_model(trained.file)
        self.refused(trained, "all rounds")
        assert trained.register(four).manifest.iteration_range == (0, 4)

    def test_of_the_order_of_categories(self, frame, tmp_path):
        trained = Trained(frame, tmp_path)
        frame = frame.assign(shop=frame["shop"].cat.codes.astype("float"))
        data = xgb.DMatrix(frame[FEATURES], label=label(trained.frame), feature_types=["q", "q", "c"])
        booster = xgb.train({"nthread": 1}, data, 3)
        booster.save_model(trained.file)
        given = {"shop": ["b", "a", "c"]}
        assert trained.register(booster.predict(data), categories=given).manifest.training_check
        in_order = trained.frame["shop"].cat.reorder_categories(["a", "b", "c"]).cat.codes.astype("float")
        other = booster.predict(xgb.DMatrix(frame.assign(shop=in_order)[FEATURES], feature_types=["q", "q", "c"]))
        with pytest.raises(SignatureMismatch, match="categories of 'shop' in sorted order"):
            trained.register(other, categories=given)

    def test_of_the_order_of_rows(self, frame, tmp_path):
        trained = Trained(frame, tmp_path)
        self.refused(trained, "another order of the rows", scores=trained.scores[::-1])

    def test_of_no_known_cause_says_what_to_check(self, frame, tmp_path):
        trained = Trained(frame, tmp_path)
        self.refused(trained, "No known cause", scores=trained.scores + np.arange(300) % 7)

    def test_names_at_most_five_rows(self, frame, tmp_path):
        with pytest.raises(SignatureMismatch) as caught:
            Trained(frame, tmp_path, missing=-999).register()
        assert str(caught.value).count(" here, ") == 5

    @pytest.mark.parametrize(
        ("scores", "words"),
        [
            ("nowhere", "are not columns of the sample"),
            (np.full(300, np.nan), "NaN or infinite in 300"),
            (np.ones(299), "299 rows"),
            (np.ones((300, 4)), "4 columns"),
            (["x", "nope"], "nope"),
        ],
    )
    def test_scores_that_cannot_be_compared_are_refused(self, frame, tmp_path, scores, words):
        with pytest.raises(InvalidSample, match=words):
            Trained(frame, tmp_path).register(scores)


class TestDeclared:
    def test_a_missing_value_is_applied(self, frame, tmp_path):
        trained = Trained(frame, tmp_path, missing=-999)
        version = trained.register(missing=-999)
        assert version.manifest.feature_reference["x"].missing == 60
        predictor = load_predictor(version, nthread=1)
        assert largest_difference(version, predictor) == 0

    def test_an_offset_is_applied_and_contributions_add_up(self, frame, tmp_path):
        trained = Trained(frame, tmp_path, base_margin=np.log(frame.exposure))
        sample = frame.assign(log_exposure=np.log(frame.exposure))
        version = trained.register(sample=sample, offset="log_exposure")
        predictor = load_predictor(version, nthread=1)
        X = encode(pa.Table.from_pandas(sample), version.manifest)
        np.testing.assert_array_equal(predictor.predict(X), trained.scores)
        np.testing.assert_allclose(predictor.contributions(X).sum(axis=1), predictor.margin(X), atol=1e-5)
        np.testing.assert_array_equal(predictor._score_on_gpu(X, False), trained.scores)
        many = np.tile(X, (800, 1))  # beyond the number from which splits are numeric
        np.testing.assert_array_equal(predictor.predict(many), np.tile(trained.scores, 800))
        np.testing.assert_array_equal(predictor.predict(many), np.tile(trained.scores, 800))

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
    def test_a_missing_value_that_can_be_no_value_is_refused(self, frame, tmp_path, value):
        with pytest.raises(RegistryError, match="missing"):
            Trained(frame, tmp_path).register(missing=value)

    def test_an_offset_that_the_sample_lacks_is_refused(self, frame, tmp_path):
        with pytest.raises(SignatureMismatch, match="no column 'nope'"):
            Trained(frame, tmp_path).register(offset="nope")

    def test_an_offset_that_is_not_finite_is_refused(self, frame, tmp_path):
        trained = Trained(frame, tmp_path, base_margin=np.log(frame.exposure))
        sample = frame.assign(o=np.log(frame.exposure).where(frame.index > 2))
        with pytest.raises(SignatureMismatch, match="offset 'o' is NULL, NaN or infinite in 3 of 300"):
            trained.register(sample=sample, offset="o")

    def test_an_offset_of_several_outputs_is_refused(self, frame, tmp_path):
        trained = Trained(frame, tmp_path, "multi:softprob", target=np.arange(300) % 3 + 0.0)
        with pytest.raises(SignatureMismatch, match="3 outputs"):
            trained.register(offset="exposure")

    def test_a_composite_refuses_an_offset_and_takes_a_missing_value(self, frame, tmp_path):
        trained = Trained(frame, tmp_path, missing=-999)
        trained.register(missing=-999)
        sample = frame.assign(log_exposure=np.log(frame.exposure))
        Trained(frame, tmp_path, base_margin=sample.log_exposure).register(sample=sample, offset="log_exposure")
        registry = trained.registry
        with pytest.raises(RegistryError, match=r"m v2 takes an offset, the column 'log_exposure'"):
            registry.compose("c", {"ensemble": [{"model": "m", "version": v} for v in (1, 2)]}, sample=frame)
        segments = [{"model": "m", "version": 1, "when": "y > 0"}, {"model": "m", "version": 1, "otherwise": True}]
        composed = registry.compose("c", {"segments": segments}, sample=frame)
        X = encode(pa.Table.from_pandas(frame), composed.manifest)
        np.testing.assert_array_equal(load_predictor(composed, nthread=1).predict(X), trained.scores)
