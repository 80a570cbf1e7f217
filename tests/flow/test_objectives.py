"""Every kind of model end to end: trained, registered, scored, published, equal to plain XGBoost."""

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from pip_dagster.errors import DeclarationError

FEATURES = ["amount", "quantity", "gift"]
SQL = """
SELECT order_id, day, gift::INT AS gift, quantity, amount FROM raw.orders
WHERE day >= $start_date AND day < $end_date
"""
CLASSES = ["kept", "zurück", "sent 'on'"]
QUANTILES = [0.1, 0.5, 0.9]

# objective → further parameters, the score columns, the values that a score may take
KINDS = {
    "binary:logistic": ({}, ["score"], (0, 1)),
    "multi:softprob": ({"num_class": 3}, [f"score_{label}" for label in CLASSES], (0, 1)),
    "multi:softmax": ({"num_class": 3}, [f"score_{label}" for label in CLASSES], (0, 1)),
    "reg:squarederror": ({}, ["score"], (-np.inf, np.inf)),
    "count:poisson": ({}, ["score"], (0, np.inf)),
    "reg:tweedie": ({"tweedie_variance_power": 1.4}, ["score"], (0, np.inf)),
    "rank:ndcg": ({}, ["score"], (-np.inf, np.inf)),
    "reg:quantileerror": ({"quantile_alpha": QUANTILES}, ["score_0", "score_1", "score_2"], (-np.inf, np.inf)),
}


def numbers(frame: pd.DataFrame, **options) -> xgb.DMatrix:
    return xgb.DMatrix(frame[FEATURES].astype({"gift": int}), **options)


def train(objective: str, frame: pd.DataFrame, parameters: dict) -> xgb.Booster:
    noise = np.random.default_rng(1).random(len(frame))
    value = frame["quantity"] * (1 + noise) + frame["gift"]
    label = {
        "binary:logistic": value > 8,
        "multi:softprob": value.rank(pct=True) * 2.99 // 1,
        "multi:softmax": value.rank(pct=True) * 2.99 // 1,
        "rank:ndcg": value // 4,
        "count:poisson": value // 1,
        "reg:tweedie": value.where(value > 5, 0),
    }.get(objective, value)
    group = {"qid": np.arange(len(frame)) // 20} if objective.startswith("rank:") else {}
    data = numbers(frame, label=label, **group)
    return xgb.train({"objective": objective, "nthread": 1, "max_depth": 3} | parameters, data, 6)


@pytest.mark.parametrize("objective", KINDS)
def test_a_model_of_any_objective_scores_as_plain_xgboost_does(tiny, helpers, objective):
    parameters, outputs, (low, high) = KINDS[objective]
    history = helpers.orders(400, seed=9)
    booster = train(objective, history, parameters)
    booster.save_model(tiny.root / "any.ubj")
    classes = CLASSES if objective.startswith("multi:") else None
    sample = history.astype({"gift": int})
    version = tiny.registry.register("any", model=tiny.root / "any.ubj", sample=sample, classes=classes)
    tiny.registry.set_alias("any", "champion", version.version, by="a test", why="a test")
    results = tiny.declare(SQL, scoring={"model_name": "any"}).run()
    assert not any(result.error for result in results.values())

    if objective == "multi:softmax":
        booster.set_param({"objective": "multi:softprob"})  # the class alone would hide how sure the model is
    frame = tiny.source_frame()
    expected = booster.predict(numbers(frame)).reshape(len(frame), -1)
    columns = ", ".join('"' + name.replace('"', '""') + '"' for name in outputs)
    rows = tiny.published(f"SELECT order_id, {columns} FROM orders.predictions ORDER BY order_id")
    assert [row[0] for row in rows] == frame["order_id"].tolist()
    got = np.array([row[1:] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(got, expected)
    assert ((got >= low) & (got <= high)).all() and len(np.unique(got)) > 10
    described = dict(row[:2] for row in tiny.published("DESCRIBE orders.predictions"))
    assert all(described[name] == "FLOAT" for name in outputs)
    if classes:
        chosen = [CLASSES[i] for i in expected.argmax(axis=1)]
        assert tiny.published("SELECT predicted_class FROM orders.predictions ORDER BY order_id") == [
            (label,) for label in chosen
        ]
        assert len(set(chosen)) == 3
    else:
        assert "predicted_class" not in described


def test_a_model_that_stopped_early_scores_with_its_best_rounds(tiny, helpers):
    history, later = helpers.orders(400, seed=9), helpers.orders(200, seed=10)
    noise = np.random.default_rng(2).integers(0, 2, 600)
    booster = xgb.train(
        {"objective": "binary:logistic", "nthread": 1, "max_depth": 6, "eta": 0.9},
        numbers(history, label=noise[:400]),
        60,
        evals=[(numbers(later, label=noise[400:]), "later")],
        early_stopping_rounds=5,
        verbose_eval=False,
    )
    best = booster.best_iteration + 1
    assert best < booster.num_boosted_rounds()
    booster.save_model(tiny.root / "early.ubj")
    tiny.registry.register("early", model=tiny.root / "early.ubj", sample=history.astype({"gift": int}))
    tiny.registry.set_alias("early", "champion", 1, by="a test", why="a test")
    tiny.declare(SQL, scoring={"model_name": "early"}).run()
    frame = tiny.source_frame()
    expected = booster.predict(numbers(frame), iteration_range=(0, best))
    assert (expected != booster.predict(numbers(frame))).any(), "all rounds would score otherwise"
    assert tiny.scores() == dict(zip(frame["order_id"].tolist(), map(float, expected), strict=True))


def test_a_key_named_as_a_score_is_refused(tiny):
    sql = "SELECT order_id AS Score, * FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    tiny.declare(sql, features={"key": ["Score"]})
    with pytest.raises(DeclarationError, match=r"'Score' is a key.*column of the predictions by .* as well; rename"):
        tiny.run()
