"""Outcomes of held-out rows at registration: measured, kept with the version, and refused where they show nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost as xgb
from sklearn.metrics import log_loss, roc_auc_score

from pip_dagster.cli.models import models
from pip_dagster.errors import RegistryError
from pip_dagster.registry import InvalidSample, Manifest, Registry, Signature, SignatureMismatch
from pip_dagster.registry.metric_spec import TWEEDIE_POWER, metric_spec, signature_spec
from pip_dagster.registry.outcomes import measure_held_out
from pip_dagster.registry.reference import score_reference

ROWS = 400


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    x = rng.normal(size=ROWS)
    return pd.DataFrame(
        {
            "x": x,
            "z": rng.normal(size=ROWS),
            "late": (rng.random(ROWS) < 1 / (1 + np.exp(-x))) * 1,
            "count": rng.poisson(np.exp(x / 2)),
            "shop": rng.choice(["a", "b", "c"], ROWS),
        }
    )


class Trained:
    """A model of one of the columns, trained on other rows."""

    def __init__(self, root: Path, objective: str, label: str, **parameters):
        self.registry, self.file, self.frame = Registry(root / "r"), root / "m.ubj", frame()
        other = frame().sample(frac=1, random_state=1)
        y = other[label].astype("category").cat.codes if label == "shop" else other[label]
        parameters = {"objective": objective, "nthread": 1, "max_depth": 2} | parameters
        self.booster = xgb.train(parameters, xgb.DMatrix(other[["x", "z"]], y), 4)
        self.booster.save_model(self.file)
        self.scores = self.booster.predict(xgb.DMatrix(self.frame[["x", "z"]]))

    def register(self, **statements):
        sample = statements.pop("sample", self.frame)
        return self.registry.register("m", model=self.file, sample=sample, **statements)


@pytest.fixture
def binary(tmp_path):
    return Trained(tmp_path, "binary:logistic", "late")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Of a binary model that was registered without outcomes."""
    return Trained(tmp_path_factory.mktemp("trained"), "binary:logistic", "late").register().manifest


@pytest.fixture
def signature(manifest):
    return Signature(**{name: getattr(manifest, name) for name in Signature.model_fields})


def test_a_binary_model_is_measured_on_the_rows_with_an_outcome(binary):
    sample = binary.frame.assign(late=binary.frame.late.astype("Float64"))
    sample.loc[:49, "late"] = None
    version = binary.register(sample=sample, outcome="late", held_out=True)
    found, y, p = version.manifest.held_out, binary.frame.late[50:], binary.scores[50:].astype(float)
    assert (found.outcome, found.rows) == ("late", ROWS - 50)
    assert (found.outcome_mean, found.outcome_sd) == pytest.approx((y.mean(), y.std(ddof=0)))
    assert found.metrics["auc"] == pytest.approx(roc_auc_score(y, p), abs=1e-9)
    assert found.metrics["logloss"] == pytest.approx(log_loss(y, p), abs=1e-9)
    bins, edges = found.bins["score"], version.manifest.score_reference["score"].edges
    assert len(bins) == len(edges) + 1 and sum(each.rows for each in bins) == found.rows
    at = np.searchsorted(np.float32(edges), binary.scores[50:], side="left")
    for i, each in enumerate(bins):
        e = (p - y)[at == i]
        assert (each.score, each.outcome) == pytest.approx((p[at == i].sum(), y[at == i].sum()))
        assert (each.error, each.squared) == pytest.approx((abs(e).sum(), (e**2).sum()))


def test_held_out_rows_may_be_others_than_the_sample(binary):
    """The sample stays what features and scores are compared with; its own outcomes do not count."""
    apart = binary.frame.iloc[:100]
    calibration = {"method": "isotonic", "x": [0.0, 1.0], "y": [0.1, 0.8]}
    manifest = binary.register(outcome="late", held_out=apart, calibration=calibration).manifest
    assert (manifest.held_out.rows, manifest.held_out.outcome_mean) == (100, apart.late.mean())
    assert sum(manifest.score_reference["score"].counts) == ROWS
    p = manifest.calibration.apply(binary.scores[:100]).astype(float)
    assert manifest.held_out.metrics["brier"] == pytest.approx(((p - apart.late) ** 2).mean())
    with pytest.raises(SignatureMismatch, match="m: the held-out rows lack the columns \\['z'\\]"):
        binary.register(outcome="late", held_out=apart.drop(columns="z"))
    with pytest.raises(
        SignatureMismatch, match="the held-out rows, read as the sample is: .* are BOOLEAN in the sample"
    ):
        binary.register(outcome="late", held_out=apart.assign(z=True))


def test_features_and_scores_have_their_standard_deviation(binary, manifest):
    assert manifest.held_out is None
    assert manifest.feature_reference["x"].sd == pytest.approx(binary.frame.x.astype(np.float32).std(ddof=0), rel=1e-6)
    assert manifest.score_reference["score"].sd == pytest.approx(binary.scores.astype(float).std(), rel=1e-6)


def test_a_calibrated_version_is_measured_by_its_calibrated_score(binary):
    calibration = {"method": "platt", "slope": 1.5, "intercept": -0.25}
    manifest = binary.register(outcome="late", held_out=True, calibration=calibration).manifest
    assert manifest.held_out.metrics["logloss"] == pytest.approx(
        log_loss(binary.frame.late, manifest.calibration.apply(binary.scores).astype(float)), abs=1e-6
    )
    assert metric_spec(manifest).scores == ("calibrated",)


@pytest.fixture
def measured(wrap, train):
    """The signature of a model of the features, and its held-out facts, without the probe's process."""

    def _measured(objective, label, outcome, sample=None, classes=None, **parameters):
        sample = frame() if sample is None else sample
        booster = train(sample[["x", "z"]], label, objective=objective, **parameters)
        predictor = wrap(booster, sample, classes=classes)
        signature, scores = predictor.signature, predictor.predict(sample[["x", "z"]].to_numpy(np.float32))
        table = pa.Table.from_pandas(sample)
        found = measure_held_out(table, outcome, signature, score_reference(scores, signature), (scores, scores))
        return signature, found, scores

    return _measured


@pytest.mark.parametrize("outcome", ["shop", "code", "category"])
def test_classes_by_label_or_by_code(measured, outcome):
    sample = frame().assign(code=lambda of: of["shop"].map({"a": 0, "b": 1, "c": 2}))
    sample = sample.assign(category=sample["shop"].astype("category"))
    of = {"num_class": 3, "classes": ("a", "b", "c")}
    _, found, scores = measured("multi:softprob", sample.code, outcome, sample, **of)
    assert found.metrics["accuracy"] == pytest.approx((scores.argmax(axis=1) == sample.code).mean())
    assert {"multi_logloss", "macro_f1", "ovr_auc", "auc.a"} <= found.metrics.keys()
    assert sum(each.outcome for each in found.bins["score_b"]) == (sample.code == 1).sum()


@pytest.mark.parametrize(
    ("objective", "parameters", "metric"),
    [
        ("reg:squarederror", {}, "r2"),
        ("count:poisson", {}, "poisson_deviance"),
        ("reg:tweedie", {"tweedie_variance_power": 1.3}, "tweedie_deviance"),
        ("reg:quantileerror", {"quantile_alpha": [0.1, 0.9]}, "pinball.0.9"),
        ("reg:quantileerror", {"quantile_alpha": 0.25}, "pinball.0.25"),
    ],
)
def test_numbers(measured, objective, parameters, metric):
    y = frame()["count"]
    signature, found, _ = measured(objective, y, "count", **parameters)
    assert metric in found.metrics and found.bins.keys() == set(signature.outputs)
    assert found.outcome_mean == pytest.approx(y.mean())
    assert signature_spec(signature).power == parameters.get("tweedie_variance_power", 1.0)
    assert signature.quantiles == (None if "quantile" not in objective else (0.25,) if "25" in metric else (0.1, 0.9))
    assert Signature.model_validate_json(signature.model_dump_json()) == signature


@pytest.mark.parametrize(
    ("outcome", "classes", "message"),
    [
        ("absent", None, "the sample has no column 'absent', the outcome; it has"),
        ("x", None, "'x' is a feature of the model"),
        ("shop", None, "is text, and the model names no classes"),
        ("shop", ("no", "yes"), "no classes of the model; it has no, yes"),
        ("count", None, "outcomes in 'count' do not fit binary:logistic: .* must be 0 or 1"),
        ("none", None, "'none' has no outcome in any of 400 rows"),
        ("one", None, "all 400 outcomes in 'one' are of one class, 1"),
        ("list", None, "not a number or a class"),
        ("inf", None, "infinite in 1 row"),
    ],
)
def test_outcomes_that_show_nothing_are_refused(signature, outcome, classes, message):
    sample = frame().assign(none=np.nan, one=1, list=[[1]] * ROWS, inf=[np.inf] + [0.0] * (ROWS - 1))
    of = signature.model_copy(update={"classes": classes})
    scores = np.linspace(0.1, 0.9, ROWS, dtype=np.float32)
    with pytest.raises(InvalidSample, match=message):
        measure_held_out(pa.Table.from_pandas(sample), outcome, of, score_reference(scores, of), (scores, scores))


@pytest.mark.parametrize(
    ("objective", "task", "why"),
    [
        ("rank:ndcg", "ranking", "its queries"),
        ("survival:aft", "survival", "censored"),
        ("reg:expectileerror", "regression", "no metric is known"),
    ],
)
def test_models_whose_outcomes_need_more_are_refused(signature, objective, task, why):
    of, scores = signature.model_copy(update={"objective": objective, "task": task}), np.linspace(1, 2, ROWS)
    with pytest.raises(InvalidSample, match=why):
        measure_held_out(pa.Table.from_pandas(frame()), "count", of, score_reference(scores, of), (scores, scores))


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ({"outcome": "late"}, "m: .* without the statement that the sample's rows are held out"),
        ({"held_out": True}, "m: held-out rows are given, and no outcome; name their column"),
        ({"held_out": "rows.parquet"}, "m: held-out rows are given, and no outcome"),
        ({"outcome": "late", "held_out": "rows.parquet"}, "cannot read the sample .*rows.parquet"),
        ({"outcome": "one", "held_out": True}, "m: all 400 outcomes in 'one' are of one class, 1"),
    ],
)
def test_a_refused_registration_stores_nothing(binary, statements, message):
    with pytest.raises(RegistryError, match=message):
        binary.register(sample=binary.frame.assign(one=1), **statements)
    with pytest.raises(RegistryError, match="no model 'm'"):
        binary.registry.versions("m")


def test_the_columns_that_are_measured_of_each_objective(manifest):
    def spec(objective, task, **options):
        return metric_spec(manifest.model_copy(update={"objective": objective, "task": task}), **options)

    assert spec("rank:ndcg", "ranking") is None and spec("reg:expectileerror", "regression") is None
    assert spec("reg:quantileerror", "regression") is None, "an earlier manifest does not say which quantile"
    assert spec("rank:ndcg", "ranking", query="q", weight="w", decisions=("flag",)).query == "q"
    assert spec("survival:aft", "survival", censored="c").censored == "c"
    assert spec("survival:cox", "survival").risk and not spec("survival:aft", "survival").risk
    assert [spec(f"binary:{name}", "binary").scale for name in ("logistic", "logitraw", "hinge")] == [
        *("probability", "margin", "score")
    ]
    assert spec("reg:tweedie", "count").power == TWEEDIE_POWER
    found = metric_spec(manifest, decisions=("flag",), weight="w", key=("id",))
    assert (found.kind, found.scores, found.decisions, found.weight) == ("binary", ("score",), ("flag",), "w")


def test_a_registered_model_gets_its_outcomes_in_a_new_version(binary):
    first = binary.register()
    second = binary.register(outcome="late", held_out=True)
    assert second.created and second.version == 2 and second.digest == first.digest
    again = binary.register(outcome="late", held_out=True)
    assert (again.created, again.version) == (False, 2)


def test_a_manifest_of_an_earlier_version_can_be_read(manifest):
    stored = json.loads(manifest.model_dump_json())
    assert not {"held_out", "quantiles", "tweedie_power"} & stored.keys()
    for reference in (*stored["feature_reference"].values(), *stored["score_reference"].values()):
        del reference["sd"]
    earlier = Manifest.model_validate(stored, context={"complete": lambda data: data})
    assert earlier.held_out is None and earlier.feature_reference["x"].sd is None


def test_the_commands_register_and_show_them(binary, helpers, tiny):
    sample = tiny.root / "sample.parquet"
    binary.frame.to_parquet(sample)
    options = ["register", "late", "--model", str(binary.file), "--sample", str(sample), "--outcome", "late"]
    result = helpers.invoke(models, options, obj=tiny.project)
    assert result.exit_code == 1 and "(--held-out-sample, held_out=...)" in result.output
    result = helpers.invoke(models, [*options, "--held-out"], obj=tiny.project)
    assert result.exit_code == 0, result.output
    shown = helpers.invoke(models, ["show", "late", "v1"], obj=tiny.project).output
    assert "400 rows, outcome late: auc 0." in shown and "held-out rows by score" in shown and "mean outcome" in shown
    found = json.loads(helpers.invoke(models, ["show", "late", "v1", "--json"], obj=tiny.project).output)
    assert found["held_out"]["rows"] == 400
    both = [*options, "--held-out", "--held-out-sample", str(sample)]
    assert "give it or --held-out, not both" in helpers.invoke(models, both, obj=tiny.project).output
    binary.frame.head(90).to_parquet(tiny.root / "apart.parquet")
    options += ["--held-out-sample", str(tiny.root / "apart.parquet")]
    assert helpers.invoke(models, options, obj=tiny.project).exit_code == 0
    assert "90 rows, outcome late" in helpers.invoke(models, ["show", "late", "v2"], obj=tiny.project).output
