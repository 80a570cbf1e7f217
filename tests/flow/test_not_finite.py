"""Scores that are NaN or infinite: the partition is refused, and what was live stays live."""

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

SQL = "SELECT order_id, day, amount FROM raw.orders WHERE day >= $start_date AND day < $end_date"
DAY, POISONED = "2024-03-01", "2024-03-02"


def register(tiny, name, objective="count:poisson", alias="champion", calibration=None, seed=1):
    """A linear model of one feature, which leaves float32 where the feature comes in another unit."""
    frame = pd.DataFrame({"amount": np.random.default_rng(seed).random(200)})
    booster = xgb.train(
        {"booster": "gblinear", "objective": objective, "eta": 0.5, "nthread": 1},
        xgb.DMatrix(frame, label=np.exp(2 * frame.amount)),
        30,
    )
    file = tiny.root / "linear.ubj"
    booster.save_model(file)
    version = tiny.registry.register(name, model=file, sample=frame, by="ada", calibration=calibration)
    tiny.registry.set_alias(name, alias, version.version, by="ada", why="a test")


@pytest.fixture
def linear(tiny):
    tiny.source("UPDATE raw.orders SET amount = (order_id % 10) / 10.0")
    register(tiny, "linear")
    return tiny.declare(SQL, scoring={"model_name": "linear"})


def poison(tiny):
    tiny.source("UPDATE raw.orders SET amount = 1e6 WHERE order_id IN (60, 61)")


@pytest.mark.parametrize("objective", ["count:poisson", "reg:tweedie", "reg:gamma"])
def test_an_infinite_score_refuses_its_partition_and_counts_the_rows(tiny, objective):
    tiny.source("UPDATE raw.orders SET amount = (order_id % 10) / 10.0")
    register(tiny, "linear", objective)
    tiny.declare(SQL, scoring={"model_name": "linear"}).run()
    before = tiny.scores()
    poison(tiny)
    results = tiny.run()
    assert {key for key, result in results.items() if result.error} == {POISONED}
    for words in ("2 rows", "score in 2 rows"):
        assert words in results[POISONED].error
    assert tiny.scores() == before
    assert np.isfinite(list(before.values())).all()


def test_a_calibrated_score_that_is_nan_is_refused(linear):
    """Platt's method takes a probability; of a score beyond 1 it gives NaN, which is above every threshold."""
    frame = pd.DataFrame({"amount": np.random.default_rng(3).random(200)})
    data = xgb.DMatrix(frame, label=frame.amount / 2 + 0.1)
    xgb.train({"booster": "gblinear", "nthread": 1}, data, 30).save_model(linear.root / "half.ubj")
    platt = {"method": "platt", "slope": 1.0, "intercept": 0.0}
    linear.registry.register("half", model=linear.root / "half.ubj", sample=frame, calibration=platt)
    linear.registry.set_alias("half", "champion", 1, by="ada", why="a test")
    linear.source("UPDATE raw.orders SET amount = 10 WHERE order_id = 60")
    linear.declare(scoring={"model_name": "half"}, decisions={"alarm": "calibrated >= 0.5"})
    results = linear.run(DAY, POISONED)
    assert not results[DAY].error
    assert "calibrated in 1 row" in results[POISONED].error
    assert not linear.published(f"SELECT 1 FROM orders.predictions WHERE day = '{POISONED}'")


def test_the_scores_of_several_classes_are_checked(linear):
    frame = pd.DataFrame({"amount": np.random.default_rng(3).random(200)})
    parameters = {"booster": "gblinear", "objective": "multi:softprob", "num_class": 3, "nthread": 1}
    booster = xgb.train(parameters, xgb.DMatrix(frame, label=(frame.amount * 2.99).astype(int)), 30)
    booster.save_model(linear.root / "several.ubj")
    linear.registry.register("several", model=linear.root / "several.ubj", sample=frame)
    linear.registry.set_alias("several", "champion", 1, by="ada", why="a test")
    linear.source("UPDATE raw.orders SET amount = 3e38 WHERE order_id = 60")
    results = linear.declare(scoring={"model_name": "several"}).run(DAY, POISONED)
    assert not results[DAY].error
    assert "score_0 in 1 row" in results[POISONED].error


@pytest.mark.parametrize("combine", ["score", "margin"])
def test_the_mean_of_an_ensemble_is_checked(linear, combine):
    register(linear, "linear", seed=2, alias="other")
    sample = pd.DataFrame({"amount": np.linspace(0, 1, 20)})
    members = [{"model": "linear", "version": version} for version in (1, 2)]
    linear.registry.compose("both", {"ensemble": members, "combine": combine}, sample=sample)
    linear.registry.set_alias("both", "champion", 1, by="ada", why="a test")
    poison(linear)
    results = linear.declare(scoring={"model_name": "both"}).run(DAY, POISONED)
    assert not results[DAY].error
    assert "score in 2 rows" in results[POISONED].error


@pytest.mark.parametrize("kind", ["split", "canary"])
def test_an_arm_with_such_scores_gets_no_share(tiny, kind):
    tiny.source("UPDATE raw.orders SET amount = (order_id % 10) / 10.0")
    poison(tiny)
    register(tiny, "returns", alias="challenger")
    gate = {"gate": {"max_flip_rate": 1, "max_score_psi": 100}} if kind == "canary" else {}
    tiny.declare(scoring={kind: {"arms": {"challenger": "40%"}, "salt": "spring"} | gate})
    assert not any(result.error for result in tiny.run().values())
    rows = tiny.published("SELECT day::VARCHAR, count(DISTINCT model_version) FROM orders.predictions GROUP BY 1")
    assert dict(rows)[POISONED] == 1
    assert dict(rows)[DAY] == 2


def test_a_number_that_a_decision_gives_is_checked_as_well(linear):
    linear.declare(
        decisions={"price": "score / (amount - 0.5)", "band": "score >= 2"}, scoring={"model_name": "linear"}
    )
    results = linear.run(DAY)
    assert "price in 5 rows" in results[DAY].error


def test_a_decision_may_be_null(linear):
    linear.declare(decisions={"price": "score / nullif(amount - 0.5, 0)"}, scoring={"model_name": "linear"})
    assert not linear.run(DAY)[DAY].error


def test_a_challenger_is_refused_and_the_champion_is_not(tiny):
    tiny.source("UPDATE raw.orders SET amount = 1e6 WHERE order_id = 60")
    register(tiny, "returns", alias="challenger")
    tiny.declare(scoring={"challengers": ["challenger"]})
    results = tiny.run()
    assert not any(result.error for result in results.values())
    rows = tiny.warehouse(
        "SELECT partition_key, reason FROM ledger.scorings WHERE role = 'challenger' AND status = 'failed'"
    )
    assert POISONED in {row[0] for row in rows}
    assert all("NaN or infinite" in row[1] for row in rows)


def test_scores_that_were_stored_before_can_still_be_replayed(linear, monkeypatch):
    from pip_dagster.flow import score
    from pip_dagster.replay.recall import find
    from pip_dagster.replay.replay import replay
    from pip_dagster.warehouse.connect import workspace

    poison(linear)
    with monkeypatch.context() as patch:
        patch.setattr(score, "refuse_not_finite", lambda *_: {})
        assert not any(result.error for result in linear.run().values())
    with workspace(threads=1) as con:
        entries = find(con, linear.pipeline(), partition=POISONED)
    assert [each.verdict for each in replay(linear.pipeline(), entries)] == ["identical"]
