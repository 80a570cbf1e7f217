"""Column lineage names columns that exist: those that each column of the predictions is computed from."""

import pytest

from pip_dagster.ledger.column_lineage import columns_read
from pip_dagster.orchestration.column_lineage import lineage_metadata

FIRST = "2024-03-01"
MODEL = {f"features.{name}" for name in ("amount", "quantity", "gift", "shop")}


def lineage_of(tiny):
    """Column → the columns that it depends on, as `asset.column`; all of them are checked to exist."""
    result = tiny.run(FIRST)[FIRST]
    assert result.error is None and result.scoring
    stored = {
        name: {row[0] for row in tiny.warehouse(f"DESCRIBE orders.{name}")} for name in ("features", "predictions")
    }
    metadata = lineage_metadata(tiny.pipeline(), result.scoring, result.columns)
    assert {column.name for column in metadata["dagster/column_schema"].columns} == stored["predictions"]
    lineage = metadata["dagster/column_lineage"].deps_by_column
    assert lineage.keys() <= stored["predictions"]
    for column, deps in lineage.items():
        for dep in deps:
            assert dep.asset_key.path[0] == "orders"
            assert dep.column_name in stored[dep.asset_key.path[1]], f"{column} ← {dep}"
    return {column: {f"{dep.asset_key.path[1]}.{dep.column_name}" for dep in deps} for column, deps in lineage.items()}


def test_scores_come_from_the_models_features_and_the_rest_from_the_features_of_that_name(tiny):
    assert lineage_of(tiny) == {"order_id": {"features.order_id"}, "day": {"features.day"}, "score": MODEL}


def test_decisions_come_from_the_scores_and_features_that_they_read(tiny):
    tiny.declare(
        decisions={
            "late": "score >= 0.5",
            "big": "amount > 100",
            "both": "SCORE > 0.5 AND \"Shop\" = 'quantity'",
            "early": "day < DATE '2024-03-02' OR order_id = 1 -- gift",
            "whole": "partition_key || ''",
            "second": "late OR big",
            "always": "true",
        }
    )
    assert lineage_of(tiny) == {
        "order_id": {"features.order_id"},
        "day": {"features.day"},
        # `carried_for_decisions` keeps what a decision mentions, in a text or comment too.
        **{name: {f"features.{name}"} for name in ("amount", "shop", "quantity", "gift")},
        "score": MODEL,
        "late": {"predictions.score"},
        "big": {"features.amount"},
        "both": {"predictions.score", "features.shop"},
        "early": {"features.day", "features.order_id"},
        "whole": {"features.partition_key"},
        "second": {"predictions.late", "predictions.big"},
        "always": set(),
    }


def test_a_calibrated_score_comes_from_the_score(tiny, tmp_path):
    version = tiny.registry.get("returns", 1)
    sample = tmp_path / "sample.parquet"
    tiny.source_frame().to_parquet(sample)
    calibrated = tiny.registry.register(
        "returns",
        model=version.path / "model.ubj",
        sample=sample,
        categories={f.name: f.categories for f in version.manifest.features if f.categories},
        calibration={"method": "platt", "slope": 1.1, "intercept": 0.2},
        by="ada",
    )
    tiny.registry.set_alias("returns", "champion", calibrated.version, by="ada", why="calibrated")
    tiny.declare(decisions={"late": "calibrated >= 0.5"})
    found = lineage_of(tiny)
    assert (found["score"], found["calibrated"]) == (MODEL, {"predictions.score"})
    assert found["late"] == {"predictions.calibrated"}


@pytest.mark.parametrize("unit", [None, "shop"])
def test_the_arm_of_a_split_comes_from_the_unit(tiny, unit):
    split = {"arms": {"challenger": "40%"}, "salt": "spring"} | ({"unit": unit} if unit else {})
    tiny.declare(scoring={"split": split})
    found = lineage_of(tiny)
    assert found["arm"] == {f"features.{unit or 'order_id'}"}
    assert ("shop" in found) == (unit == "shop")


def test_of_an_expression_the_references_count_and_its_texts_do_not():
    assert columns_read("CASE WHEN a > 1 THEN \"B c\" ELSE lower('d') END -- e") == ["a", "b c"]
    assert columns_read("address.city = 'x' OR address.zip IS NULL") == ["address"]
    assert columns_read("carrier.lower() = 'aa'") == ["carrier"]
    assert columns_read("1 + 1") == []
