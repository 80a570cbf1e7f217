"""A comparison of the predicted class with one that the model does not have is refused: it would never hold."""

import numpy as np
import pytest
import xgboost as xgb

from pip_dagster.errors import DeclarationError
from pip_dagster.promotion.check import check
from pip_dagster.sql.row_sql import compared_with

SQL = "SELECT order_id, day, quantity FROM raw.orders WHERE day >= $start_date AND day < $end_date"


@pytest.fixture
def several(tiny):
    """Two versions: v1 has yes, no and maybe, v2 has never in the place of maybe."""
    frame = tiny.source_frame()[["quantity"]]
    parameters = {"objective": "multi:softprob", "num_class": 3, "nthread": 1}
    booster = xgb.train(parameters, xgb.DMatrix(frame, label=np.arange(len(frame)) % 3), 2)
    booster.save_model(tiny.root / "several.ubj")
    for last in ("maybe", "never"):
        tiny.registry.register("several", model=tiny.root / "several.ubj", sample=frame, classes=["yes", "no", last])
    tiny.registry.set_alias("several", "champion", 1, by="ada", why="a test")
    return tiny


def declare(several, decision, **more):
    decisions = {"sure": "score_yes > 0.5", "act": decision}
    return several.declare(SQL, scoring={"model_name": "several"}, decisions=decisions, **more)


@pytest.mark.parametrize(
    "decision",
    [
        "predicted_class = 'yess'",
        "'yess' <> PREDICTED_CLASS",
        "sure AND predicted_class IN ('yes', 'yess')",
        "predicted_class NOT IN ('yess')",
        "predicted_class IS DISTINCT FROM 'yess'",
        "CASE predicted_class WHEN 'yess' THEN 1 ELSE 0 END",
        "CASE WHEN \"predicted_class\" = 'yess' THEN 'a' ELSE 'b' END",
    ],
)
def test_a_class_that_the_model_does_not_have_is_refused_and_nothing_stored(several, decision):
    declare(several, decision)
    with pytest.raises(DeclarationError, match=r"decisions\.act .*'yess', which is no class.*Did you mean 'yes'\?"):
        several.run()
    assert not several.project.warehouse.is_file()


@pytest.mark.parametrize(
    "decision",
    ["predicted_class = 'yes'", "predicted_class IN ('yes', 'maybe')", "'yess' = 'yes'", "upper(predicted_class)"],
)
def test_other_expressions_are_not(several, decision):
    results = declare(several, decision).run("2024-03-01")
    assert not results["2024-03-01"].error


def test_the_selection_of_explanations_is_checked_as_well(several):
    declare(several, "predicted_class", explanations={"where": "predicted_class = 'yess'"})
    with pytest.raises(DeclarationError, match=r"explanations\.where"):
        several.run()


def test_a_candidate_without_the_class_is_not_promoted(several):
    declare(several, "predicted_class = 'maybe'").run("2024-03-01")
    candidate = several.registry.get("several", 2)
    report = check(several.pipeline(), several.registry, candidate, 1, by="ada", progress=lambda _: None)
    failed = {result.name: result.text for result in report.results if not result.passed}
    assert "'maybe', which is no class of several v2" in failed["decisions"]


def test_a_challenger_without_the_class_is_refused_and_the_champion_is_not(several):
    several.registry.set_alias("several", "challenger", 2, by="ada", why="a test")
    declare(several, "predicted_class = 'maybe'")
    scoring = {"model_name": "several", "challengers": ["challenger"]}
    several.declare(scoring=scoring, decisions={"act": "predicted_class = 'maybe'"})
    reported = []
    results = several.run("2024-03-01", progress=reported.append)
    assert not results["2024-03-01"].error and not results["2024-03-01"].challengers
    assert any("no class of several v2" in line for line in reported)


def test_constants_are_found_beside_the_column_only():
    text = "a = 'x' AND b = 'y' AND a BETWEEN 'l' AND 'u' AND a = NULL AND b IN (a, 'z') AND lower(a) = 'w'"
    assert compared_with(text, "A") == ["x", "l", "u", "z"]
