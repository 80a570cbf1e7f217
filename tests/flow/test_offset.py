"""A model with a base margin and a sentinel for missing values, through scoring, reasons, shadow, gates and replay."""

import numpy as np
import pytest
import xgboost as xgb

from pip_dagster.errors import DeclarationError
from pip_dagster.promotion.check import check
from pip_dagster.replay.recall import find
from pip_dagster.replay.replay import replay
from pip_dagster.warehouse.connect import workspace

SQL = """
SELECT order_id, day, coalesce(amount, -999) AS amount, quantity, ln((1 + order_id % 12) / 12.0) AS log_exposure
FROM raw.orders WHERE day >= $start_date AND day < $end_date
"""
DAY, POISONED = "2024-03-01", "2024-03-02"
FEATURES = ["amount", "quantity"]


def frame_of(tiny):
    frame = tiny.source_frame()
    frame["amount"] = frame.amount.fillna(-999)
    frame["log_exposure"] = np.log((1 + frame.order_id % 12) / 12.0)
    return frame


def matrix(frame, label=None):
    margin = frame.log_exposure.astype(np.float32)
    return xgb.DMatrix(frame[FEATURES], label=label, base_margin=margin, missing=-999)


@pytest.fixture
def rates(tiny):
    """Two versions of a rate; the second is the challenger."""
    frame = frame_of(tiny)
    label = np.exp(frame.log_exposure) * (1 + frame.quantity + (frame.amount == -999) * 5)
    for rounds in (6, 8):
        booster = xgb.train({"objective": "count:poisson", "nthread": 1, "max_depth": 3}, matrix(frame, label), rounds)
        booster.save_model(tiny.root / "rate.ubj")
        tiny.registry.register(
            "rates",
            model=tiny.root / "rate.ubj",
            sample=frame,
            missing=-999,
            offset="log_exposure",
            training_scores=booster.predict(matrix(frame)),
        )
    tiny.registry.set_alias("rates", "champion", 1, by="ada", why="a test")
    tiny.registry.set_alias("rates", "challenger", 2, by="ada", why="a test")
    return tiny.declare(SQL, scoring={"model_name": "rates", "challengers": ["challenger"]}, explanations={"top": 2})


def expected(tiny, version=1, **options):
    booster = xgb.Booster(model_file=str(tiny.registry.get("rates", version).path / "model.ubj"))
    return booster.predict(matrix(frame_of(tiny)), **options)


def test_scores_and_reasons_are_those_of_training(rates):
    results = rates.run()
    assert not any(result.error for result in results.values())
    assert list(rates.scores().values()) == expected(rates).tolist()
    reasons = rates.warehouse(
        "SELECT order_id, sum(contribution) + any_value(base) FROM orders.reasons GROUP BY 1 ORDER BY 1"
    )
    margins = expected(rates, output_margin=True)
    np.testing.assert_allclose([row[1] for row in reasons], margins, atol=1e-5)
    shadow = rates.warehouse(
        "SELECT order_id, score FROM orders.scores JOIN ledger.scorings USING (scoring_id) "
        "WHERE role = 'challenger' ORDER BY ALL"
    )
    assert [row[1] for row in shadow] == expected(rates, 2).tolist()
    with workspace(threads=1) as con:
        entries = find(con, rates.pipeline())
    assert {each.verdict for each in replay(rates.pipeline(), entries)} == {"identical"}


def test_gates_rescore_with_it_and_report_what_was_verified(rates):
    rates.run()
    candidate = rates.registry.get("rates", 2)
    report = check(rates.pipeline(), rates.registry, candidate, 1, by="ada", progress=lambda _: None)
    results = {result.name: result for result in report.results}
    assert results["replay"].passed and results["signature"].passed
    assert "verified against training on 200 rows" in results["signature"].text


@pytest.mark.parametrize("value", ["NULL", "'nan'::DOUBLE", "'inf'::DOUBLE", "1e300"])
def test_a_row_without_a_finite_offset_refuses_its_partition(rates, value):
    rates.run()
    before = rates.scores()
    case = f"CASE WHEN order_id = 60 THEN {value} ELSE ln((1 + order_id % 12) / 12.0) END AS log_exposure"
    rates.declare(SQL.replace("ln((1 + order_id % 12) / 12.0) AS log_exposure", case), scoring={"model_name": "rates"})
    results = rates.run()
    assert {key for key, result in results.items() if result.error} == {POISONED}
    assert "offset log_exposure in 1 row" in results[POISONED].error
    assert rates.scores() == before


def test_a_pipeline_without_the_offset_is_refused_before_anything_is_stored(rates):
    rates.declare(SQL.replace("AS log_exposure", "AS log_exposur"), scoring={"model_name": "rates"})
    with pytest.raises(DeclarationError, match=r"takes the offset 'log_exposure'.*there is 'log_exposur'"):
        rates.run()
    rates.declare(SQL.replace("ln((1 + order_id % 12) / 12.0)", "'x'"), scoring={"model_name": "rates"})
    with pytest.raises(DeclarationError, match="offset 'log_exposure' is VARCHAR; expected a number"):
        rates.run()


def test_a_feature_of_sentinels_only_counts_as_missing(rates):
    rates.source(f"UPDATE raw.orders SET amount = NULL WHERE day = '{DAY}'")
    assert rates.run(DAY)[DAY].scoring.found["all_missing"] == ["amount"]
