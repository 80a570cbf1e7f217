"""What follows from an objective; and that versions registered before engine and task were recorded stay valid."""

import dataclasses
import json
import re
from hashlib import sha256

import numpy as np
import pytest
import xgboost as xgb

from pip_dagster.flow.label_metric import _FITTING
from pip_dagster.registry import CorruptRegistry, InvalidModel, Registry, SignatureMismatch
from pip_dagster.registry.engines import DEFAULT, ENGINES, engine_named, objective_of
from pip_dagster.registry.engines.protocol import SignatureClaims
from pip_dagster.registry.engines.xgboost.booster_facts import inspect
from pip_dagster.registry.engines.xgboost.objectives import _OBJECTIVES
from pip_dagster.registry.engines.xgboost.objectives import objective_of as of_name
from pip_dagster.registry.engines.xgboost.signature import derive
from pip_dagster.registry.golden import largest_difference
from pip_dagster.registry.listing import details
from pip_dagster.registry.load import load_predictor
from pip_dagster.registry.signing import keygen, sign, verify_signers
from pip_dagster.registry.task import default_decision


def offered() -> set[str]:
    """The objectives of the installed XGBoost, which lists them when it does not know one."""
    with pytest.raises(xgb.core.XGBoostError) as caught:
        xgb.train({"objective": "none"}, xgb.DMatrix(np.zeros((2, 1)), label=[0, 1]), 1)
    return set(re.findall(r"Objective candidate: (\S+)", str(caught.value)))


OFFERED = offered()
# objective: task, metric, decision, further parameters
EXPECTED = {
    "binary:logistic": ("binary", "auc", "score >= 0.5", {}),
    "binary:logitraw": ("binary", "auc", "score >= 0", {}),
    "binary:hinge": ("binary", "auc", "score >= 0.5", {}),
    "multi:softprob": ("multiclass", "multi_logloss", "predicted_class", {"num_class": 3}),
    "multi:softmax": ("multiclass", "multi_logloss", "predicted_class", {"num_class": 3}),
    "reg:squarederror": ("regression", "rmse", None, {}),
    "reg:linear": ("regression", "rmse", None, {}),
    "reg:absoluteerror": ("regression", "rmse", None, {}),
    "reg:pseudohubererror": ("regression", "rmse", None, {}),
    "reg:squaredlogerror": ("regression", "rmse", None, {}),
    "reg:logistic": ("regression", "rmse", None, {}),
    "reg:quantileerror": ("regression", "rmse", None, {"quantile_alpha": [0.1, 0.9]}),
    "reg:expectileerror": ("regression", "rmse", None, {"expectile_alpha": [0.1, 0.9]}),
    "reg:gamma": ("regression", "rmse", None, {}),
    "reg:tweedie": ("count", "poisson_deviance", None, {}),
    "count:poisson": ("count", "poisson_deviance", None, {}),
    "rank:ndcg": ("ranking", "auc", None, {"group": [100, 100, 100]}),
    "rank:map": ("ranking", "auc", None, {"group": [100, 100, 100]}),
    "rank:pairwise": ("ranking", "auc", None, {"group": [100, 100, 100]}),
    "survival:cox": ("survival", "auc", None, {}),
    "survival:aft": ("survival", "auc", None, {}),
}


BY_STOPS = {
    "segments": [
        {"when": "stops > 2", "model": "delay", "version": 1},
        {"otherwise": True, "model": "delay", "version": 1},
    ]
}


def test_every_objective_of_the_installed_xgboost_has_a_task():
    assert len(OFFERED) > 15
    assert set(_OBJECTIVES) >= OFFERED
    assert set(_OBJECTIVES) == set(EXPECTED)


@pytest.mark.parametrize("objective", EXPECTED)
def test_metric_and_decision_follow_from_the_task(train, wrap, frame, objective):
    if objective not in OFFERED:
        pytest.skip(f"XGBoost {xgb.__version__} does not offer it")
    task, metric, decision, extra = EXPECTED[objective]
    target = frame.stops % 3 if objective.startswith("multi:") else (frame.stops > 2).astype(float)
    target = target + 1 if objective in ("reg:gamma", "survival:cox") else target
    if objective == "survival:aft":
        data = xgb.DMatrix(frame, enable_categorical=True)
        data.set_float_info("label_lower_bound", frame.stops + 1.0)
        data.set_float_info("label_upper_bound", frame.stops + 2.0)
        booster = xgb.train({"objective": objective, "nthread": 1}, data, 3)
    else:
        booster = train(frame, target, rounds=3, objective=objective, **extra)
    signature = wrap(booster, frame).signature
    assert (signature.engine, signature.task) == ("xgboost", task)
    assert _FITTING[signature.task][0] == metric
    assert default_decision(signature, calibrated=False) == decision
    assert (signature.classes is not None) == (task == "multiclass")


@pytest.mark.parametrize("objective", [name for name, value in EXPECTED.items() if of_name(name).link])
def test_the_link_turns_margins_into_scores(train, wrap, frame, objective):
    import pyarrow as pa

    from pip_dagster.registry.combine import linked
    from pip_dagster.registry.encoding import encode

    if objective not in OFFERED:
        pytest.skip(f"XGBoost {xgb.__version__} does not offer it")
    target = frame.stops % 3 if objective.startswith("multi:") else (frame.stops > 2).astype(float)
    target = target + 1 if objective == "reg:gamma" else target
    predictor = wrap(train(frame, target, rounds=3, objective=objective, **EXPECTED[objective][3]), frame)
    X = encode(pa.Table.from_pandas(frame, preserve_index=False), predictor.signature)
    scores = linked(predictor.margin(X).astype(np.float64), objective_of(predictor.signature).link)
    np.testing.assert_allclose(scores, predictor.predict(X), rtol=1e-5)


def test_an_unknown_objective_is_refused_at_registration(booster, frame):
    import pyarrow as pa

    facts = dataclasses.replace(inspect(booster, None), objective="reg:of_tomorrow")
    with pytest.raises(SignatureMismatch, match="'reg:of_tomorrow' is not known.*expected one of binary:hinge"):
        derive(facts, pa.Table.from_pandas(frame, preserve_index=False), SignatureClaims())


def forget(folder, change=lambda manifest: None):
    """Rewrite a version's manifest as it was before engine and task were recorded."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    members = (manifest.get("composite") or {"members": []})["members"]
    for signature in (manifest, *(member["signature"] for member in members)):
        assert signature.pop("engine") == "xgboost" and signature.pop("task") == "binary"
    change(manifest)
    data = json.dumps(manifest, indent=2).encode()
    digest = sha256(data).hexdigest()
    for file, content in ((path, data), (folder / "manifest.sha256", f"{digest}  manifest.json\n".encode())):
        file.chmod(0o644)
        file.write_bytes(content)
    return digest


def test_a_version_from_before_stays_valid_and_is_signed_and_found_again(version, frame, model_file, tmp_path):
    registry = Registry(version.path.parents[2])
    digest = forget(version.path)
    before = registry.get("delay", 1)
    assert (before.manifest.engine, before.manifest.task) == ("xgboost", "binary")
    assert (before.manifest_digest, before.digest) == (digest, version.digest)
    assert before.manifest == version.manifest
    before.verify()
    assert largest_difference(before, load_predictor(before, nthread=1)) == 0.0
    private, public = keygen(tmp_path / "key")
    sign(before, private)
    verify_signers(before, [str(public)])
    again = registry.register("delay", model=model_file, sample=frame)
    assert again.version == 1 and not again.created
    assert sha256((version.path / "manifest.json").read_bytes()).hexdigest() == digest


def test_a_composite_from_before_stays_valid_and_is_found_again(version, frame):
    registry = Registry(version.path.parents[2])
    composed = registry.compose("both", BY_STOPS, sample=frame)
    assert (composed.manifest.engine, composed.manifest.task) == ("xgboost", "binary")
    digest = forget(composed.path)
    before = registry.get("both", 1)
    assert (before.manifest, before.manifest_digest) == (composed.manifest, digest)
    assert largest_difference(before, load_predictor(before, nthread=1)) == 0.0
    again = registry.compose("both", BY_STOPS, sample=frame)
    assert again.version == 1 and not again.created


def test_a_mirror_from_before_stays_valid(version):
    origin = {"uri": "models:/delay/1", "run_id": None, "model_sha256": version.digest}
    forget(version.path, lambda manifest: manifest.update(origin=origin))
    before = Registry(version.path.parents[2]).get("delay", 1)
    assert before.manifest.task == "binary" and before.manifest.origin.uri == "models:/delay/1"
    before.verify()


def test_tags_and_metrics_named_as_the_new_fields_are_left_alone(version):
    tags = {"objective": "binary:logistic", "commit": "abc"}
    forget(version.path, lambda manifest: manifest.update(tags=tags))
    assert Registry(version.path.parents[2]).get("delay", 1).manifest.tags == tags


def test_a_stored_objective_that_is_not_known_is_a_corrupt_registry(version):
    forget(version.path, lambda manifest: manifest.update(objective="reg:of_tomorrow"))
    with pytest.raises(CorruptRegistry, match="delay v1: .*'reg:of_tomorrow' is not known"):
        Registry(version.path.parents[2]).get("delay", 1)


def test_another_engine_is_named_and_not_loaded(version):
    manifest = version.manifest.model_copy(update={"engine": "lightgbm"})
    other = dataclasses.replace(version, manifest=manifest)
    assert details(other, ())["task"] == "binary"
    with pytest.raises(InvalidModel, match="needs the engine 'lightgbm'.*it has xgboost"):
        load_predictor(other, nthread=1)


def test_a_composite_is_no_single_model_and_has_no_margin(version, frame):
    from pip_dagster.registry.engines.xgboost.predictor import BoosterPredictor

    registry = Registry(version.path.parents[2])
    predictor = load_predictor(registry.compose("both", BY_STOPS, sample=frame), nthread=1)
    assert not isinstance(predictor, BoosterPredictor)
    assert not hasattr(predictor, "margin")
    X = np.column_stack([np.zeros((3, 4), np.float32), [0, 1, 1]]).astype(np.float32)
    single = load_predictor(version, nthread=1)
    np.testing.assert_array_equal(predictor.predict(X), single.predict(X[:, :4]))
    np.testing.assert_array_equal(predictor.contributions(X), single.contributions(X[:, :4]))
    assert predictor.gpu_failure is None


def test_engines_declare_what_the_guard_refuses_and_which_versions_are_recorded():
    engine = engine_named(DEFAULT)
    assert {"xgboost": engine} == ENGINES
    assert engine.libraries() == {"xgboost": xgb.__version__} and engine.version() == xgb.__version__
    assert engine.matrix.largest == np.finfo(np.float32).max and not engine.matrix.takes_infinite
