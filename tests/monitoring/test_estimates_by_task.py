"""Estimates of models of several classes, of numbers and of composites, and of those that have none."""

import numpy as np
import pytest
import xgboost as xgb

from pip_dagster.flow.performance import evaluate
from pip_dagster.monitoring.estimates import read_estimates
from pip_dagster.monitoring.estimating import calibrate_after_labels, estimate_scored
from pip_dagster.warehouse.connect import workspace

DAYS = [f"2024-03-{day:02}" for day in range(1, 9)]
MORE = """
CREATE OR REPLACE TABLE raw.orders AS
SELECT (row_number() OVER ())::INTEGER AS order_id, d::DATE AS day, * EXCLUDE (order_id, day)
FROM raw.orders, generate_series(DATE '2024-03-01', DATE '2024-03-08', INTERVAL 1 DAY) g(d)"""
SQL = "SELECT order_id, day, quantity, gift FROM raw.orders WHERE day >= $start_date AND day < $end_date"
SOURCES = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
LABELS = {"sql": "labels.sql", "outcome": "outcome", "complete_after": "1 day"}
NOISE = "(hash(order_id, 5) % 1000 / 1000.0)"
TASKS = {
    "multi:softprob": f"['no', 'yes', 'maybe'][1 + least(2, floor(quantity / 4 + {NOISE}))::INT]",
    "reg:squarederror": f"quantity * (1 + {NOISE})",
    "count:poisson": f"floor(quantity * {NOISE})",
    "reg:tweedie": f"quantity * {NOISE}",
}
EXPECTED = {
    "multi:softprob": {"accuracy", "multi_logloss", "macro_f1", "ovr_auc"},
    "reg:squarederror": {"rmse", "mae", "bias"},
    "count:poisson": {"poisson_deviance", "rmse", "mae", "bias"},
    "reg:tweedie": {"tweedie_deviance", "rmse", "mae", "bias"},
}


def train(tiny, objective):
    """A model of two features, trained on what `TASKS` says."""
    tiny.source(
        MORE, f"CREATE TABLE raw.outcomes AS SELECT order_id, day, {TASKS[objective]} AS outcome FROM raw.orders"
    )
    rows = tiny.source_rows("SELECT quantity, gift, outcome FROM raw.orders JOIN raw.outcomes USING (order_id)")
    X = np.array([row[:2] for row in rows], np.float32)
    classes = ["no", "yes", "maybe"] if objective.startswith("multi") else None
    y = np.array([classes.index(row[2]) if classes else row[2] for row in rows], float)
    data = xgb.DMatrix(X, label=y, feature_names=["quantity", "gift"], feature_types=["int", "i"])
    parameters = {"objective": objective, "nthread": 1, "max_depth": 3} | ({"num_class": 3} if classes else {})
    xgb.train(parameters, data, 6).save_model(tiny.root / "any.ubj")
    sample = tiny.source_frame()[["quantity", "gift"]]
    tiny.registry.register("any", model=tiny.root / "any.ubj", sample=sample, classes=classes)
    tiny.registry.set_alias("any", "champion", 1, by="ada", why="a test")
    (tiny.folder / "labels.sql").write_text(
        "SELECT order_id, outcome FROM raw.outcomes WHERE day >= $start_date AND day < $end_date"
    )
    tiny.declare(SQL, sources=SOURCES, labels=LABELS, monitoring={}, scoring={"model_name": "any"})


def estimated(tiny, version, *, days=DAYS):
    """The metrics of the last day, estimated with the labels of the days before, and then labelled."""
    with workspace(threads=1) as con:
        evaluate(con, tiny.pipeline(), days[:-1])
        why = calibrate_after_labels(con, tiny.pipeline())
        found = estimate_scored(con, tiny.pipeline(), version, [days[-1]])
        evaluate(con, tiny.pipeline(), days[-1:])
        return why, found, {each.metric: each for each in read_estimates(con, tiny.pipeline(), version)}


@pytest.mark.slice
@pytest.mark.parametrize("objective", [*TASKS])
def test_each_metric_of_the_task_is_estimated_and_graded(tiny, objective):
    train(tiny, objective)
    tiny.run(*DAYS)
    why, found, shown = estimated(tiny, tiny.registry.get("any", 1))
    assert why is None and found.reasons == {} and set(shown) == EXPECTED[objective]
    assert all(each.truth is not None and each.low <= each.value <= each.high for each in shown.values())
    assert sum(each.hit for each in shown.values()) >= len(shown) - 1


def test_scores_beyond_those_of_the_labels_have_no_estimate(tiny):
    train(tiny, "reg:squarederror")
    tiny.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{DAYS[-1]}'")
    tiny.run(*DAYS)
    _, found, shown = estimated(tiny, tiny.registry.get("any", 1))
    assert found.done == 0 and "100% of the rows have scores in the highest bin" in found.reasons[DAYS[-1]]
    assert shown[""].text.startswith("no estimate: 100% of the rows")


def test_a_task_without_an_estimator_says_so(tiny):
    train(tiny, "reg:squarederror")
    frame = tiny.source_frame()[["quantity", "gift"]]
    data = xgb.DMatrix(frame.astype(np.float32), label=np.arange(len(frame)) % 3, feature_types=["int", "i"])
    data.set_group([len(frame)])
    xgb.train({"objective": "rank:pairwise", "nthread": 1}, data, 2).save_model(tiny.root / "rank.ubj")
    tiny.registry.register("any", model=tiny.root / "rank.ubj", sample=frame)
    tiny.registry.set_alias("any", "champion", 2, by="ada", why="a test")
    tiny.run(*DAYS[:2])
    with workspace(threads=1) as con:
        found = estimate_scored(con, tiny.pipeline(), tiny.registry.get("any", 2), DAYS[:2])
    assert found.done == 0 and "no estimator is known for ranking models" in found.reasons[DAYS[0]]


OUTCOMES = f"""CREATE TABLE raw.outcomes AS
SELECT order_id, day, (quantity / 8 + {NOISE} > 1)::INT AS outcome FROM raw.orders"""


MEMBERS = {
    "segments": [
        {"name": "far", "when": "shop IN ('Zürich', '東京')", "model": "returns", "version": 2},
        {"name": "rest", "otherwise": True, "model": "returns", "version": 1},
    ]
}


@pytest.mark.slice
def test_a_composite_is_calibrated_by_the_member_that_scored(tiny, helpers):
    tiny.registry.compose("returns", MEMBERS, sample=helpers.orders(400, seed=4), by="ada")
    tiny.registry.set_alias("returns", "champion", 3, by="ada", why="a composite")
    tiny.source(MORE, OUTCOMES)
    (tiny.folder / "labels.sql").write_text(
        "SELECT order_id, outcome FROM raw.outcomes WHERE day >= $start_date AND day < $end_date"
    )
    tiny.declare(sources=SOURCES, labels=LABELS, monitoring={})
    tiny.run(*DAYS)
    why, found, shown = estimated(tiny, tiny.registry.get("returns", 3))
    assert why is None and found.done == 1 and "auc" in shown
    ((segments,),) = tiny.warehouse("SELECT DISTINCT segments FROM ledger.calibrators")
    assert segments[0] is None and {*segments[1:]} == {"far", "rest"}


def test_held_out_rows_calibrate_a_version_without_labels(tiny, helpers):
    """A version that is registered with outcomes of held-out rows is estimated from its first day on, marked so."""
    tiny.source(MORE, OUTCOMES)
    (tiny.folder / "labels.sql").write_text(
        "SELECT order_id, outcome FROM raw.outcomes WHERE day >= $start_date AND day < $end_date"
    )
    sample = helpers.orders(3_000, seed=9)
    rng = np.random.default_rng(9)
    sample["outcome"] = (sample["quantity"] / 8 + rng.random(len(sample)) > 1).astype(int)
    tiny.registry.register(
        "returns",
        model=tiny.registry.get("returns", 2).path / "model.ubj",
        sample=sample,
        categories={"shop": helpers.SHOPS},
        by="ada",
        outcome="outcome",
        held_out=True,
    )
    tiny.registry.set_alias("returns", "champion", 3, by="ada", why="a test")
    tiny.declare(sources=SOURCES, labels=LABELS, monitoring={})
    tiny.run(DAYS[0])
    with workspace(threads=1) as con:
        found = estimate_scored(con, tiny.pipeline(), tiny.registry.get("returns", 3), DAYS[:1])
    assert found.done == 1, found.reasons
    evaluated = (
        "SELECT kind, c.rows, e.metric FROM ledger.calibrators c JOIN orders.estimates e ON calibrator_digest = digest"
    )
    rows = tiny.warehouse(evaluated)
    with workspace(threads=1) as con:
        shown = read_estimates(con, tiny.pipeline(), tiny.registry.get("returns", 3))
    assert all(each.text.endswith("by the held-out rows of its registration") for each in shown)
    assert {row[:2] for row in rows} == {("held out", 3_000)} and {row[2] for row in rows} >= {"auc", "base_rate"}
