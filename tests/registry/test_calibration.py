"""Calibration: registered with a version, applied beside the raw score, never instead of it."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pip_dagster.errors import RegistryError
from pip_dagster.registry.calibration import Calibration

PLATT = {"method": "platt", "slope": 1.5, "intercept": -0.25}
ISOTONIC = {"method": "isotonic", "x": [0.1, 0.4, 0.9], "y": [0.05, 0.5, 0.7]}


@given(st.lists(st.floats(0, 1, width=32), min_size=1))
def test_platt_is_the_logistic_of_a_line_over_the_logit(scores):
    given_scores = np.array(scores, dtype=np.float32)
    made = Calibration(**PLATT).apply(given_scores)
    inner = (given_scores > 0) & (given_scores < 1)
    p = given_scores[inner].astype(float)
    assert made[inner] == pytest.approx(1 / (1 + np.exp(-(1.5 * np.log(p / (1 - p)) - 0.25))), abs=1e-6)
    assert set(made[given_scores == 0]) <= {0.0} and set(made[given_scores == 1]) <= {1.0}


@given(st.lists(st.floats(-1, 2, width=32), min_size=1))
def test_isotonic_keeps_the_order_and_is_flat_beyond_its_points(scores):
    given_scores = np.sort(np.array(scores, dtype=np.float32))
    made = Calibration(**ISOTONIC).apply(given_scores)
    assert made.dtype == np.float32 and (np.diff(made) >= 0).all()
    assert set(made[given_scores <= 0.1]) <= {np.float32(0.05)} and set(made[given_scores >= 0.9]) <= {np.float32(0.7)}


def test_a_missing_score_stays_missing():
    for declared in (PLATT, ISOTONIC):
        assert np.isnan(Calibration(**declared).apply(np.array([np.nan], dtype=np.float32))).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "platt", "slope": 1.0},
        {"method": "platt", "slope": 1.0, "intercept": float("nan")},
        {"method": "isotonic", "x": [0.1, 0.2], "y": [0.1]},
        {"method": "isotonic", "x": [0.2, 0.1], "y": [0.1, 0.2]},
        {"method": "isotonic", "x": [0.1, 0.2], "y": [0.2, 0.1]},
        {"method": "isotonic", "x": [], "y": []},
        {"method": "beta", "x": [0.1], "y": [0.1]},
    ],
)
def test_one_that_cannot_be_applied_is_refused(wrong):
    with pytest.raises(ValidationError):
        Calibration(**wrong)


def test_a_calibrated_version_gives_both_scores_and_decisions_may_use_them(tiny, helpers):
    history = helpers.orders(200, seed=5)
    file = tiny.root / "model.ubj"
    helpers.train(1, history).save_model(file)

    def register(calibration):
        return tiny.registry.register(
            "returns", model=file, sample=history, categories={"shop": helpers.SHOPS}, calibration=calibration
        )

    version = register(PLATT)
    assert not register(PLATT).created and register(ISOTONIC).created
    tiny.registry.set_alias("returns", "champion", version.version, by="ada", why="calibrated")
    tiny.declare(decisions={"back": "calibrated >= 0.5"}).run()
    rows = tiny.published("SELECT order_id, score, calibrated, back FROM orders.predictions ORDER BY 1")
    assert {row[0]: row[1] for row in rows} == tiny.expected(version=version.version)
    made = Calibration(**PLATT).apply(np.array([row[1] for row in rows], dtype=np.float32))
    assert [row[2] for row in rows] == made.tolist()
    assert [row[3] for row in rows] == (made >= 0.5).tolist()


def test_a_model_of_several_outputs_takes_none(tiny, helpers):
    history = helpers.orders(200, seed=5)
    booster = helpers.xgb.train(
        {"objective": "multi:softprob", "num_class": 3, "nthread": 1},
        helpers.matrix(history, history["quantity"] % 3),
        2,
    )
    booster.save_model(tiny.root / "multi.ubj")
    with pytest.raises(RegistryError, match="one output"):
        tiny.registry.register(
            "multi",
            model=tiny.root / "multi.ubj",
            sample=history,
            categories={"shop": helpers.SHOPS},
            calibration=PLATT,
        )


def test_the_command_line_takes_it_from_a_file(tiny, helpers):
    from pip_dagster.cli.main import cli

    history = helpers.orders(200, seed=5)
    helpers.train(1, history).save_model(tiny.root / "model.ubj")
    history.to_parquet(tiny.root / "sample.parquet")
    (tiny.root / "calibration.json").write_text(json.dumps(ISOTONIC))
    (tiny.root / "categories.json").write_text(json.dumps({"shop": helpers.SHOPS}))
    options = {"model": "model.ubj", "sample": "sample.parquet", "calibration": "calibration.json"}
    options["categories"] = "categories.json"
    arguments = [part for name, file in options.items() for part in (f"--{name}", str(tiny.root / file))]
    result = CliRunner().invoke(cli, ["--project", str(tiny.root), "models", "register", "fresh", *arguments])
    assert result.exit_code == 0, result.output
    assert tiny.registry.get("fresh", 1).manifest.calibration == Calibration(**ISOTONIC)
