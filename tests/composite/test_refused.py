"""What cannot be composed is refused, with the reason, and nothing is stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pip_dagster.registry import ModelVersion, RegistryError
from pip_dagster.registry.errors import InvalidSample, ModelNotFound, SignatureMismatch
from pip_dagster.registry.route import read_columns

import xgboost as xgb  # isort: skip


def member(version: int, model: str = "returns", **more: Any) -> dict[str, Any]:
    return {"model": model, "version": version} | more


def seg(*segments: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"segments": list(segments)} | more


OTHER = {"otherwise": True, "model": "returns", "version": 1}


@pytest.mark.parametrize(
    ("composition", "error", "told"),
    [
        ({"ensemble": [member(1), member(9)]}, ModelNotFound, "there is no v9"),
        ({"ensemble": [member(1), member(1, "nobody")]}, ModelNotFound, "no model 'nobody'"),
        ({"ensemble": [member(1), {"model": "returns", "alias": "best"}]}, ModelNotFound, "no alias 'best'"),
        ({"ensemble": [member(1)]}, RegistryError, "at least two members"),
        ({"ensemble": [member(1), member(1)]}, RegistryError, "names one version twice"),
        (
            {"ensemble": [member(1), {"model": "returns", "alias": "champion"}]},
            RegistryError,
            "names one version twice",
        ),
        ({"ensemble": [member(1), member(3)]}, RegistryError, "returns v3 is a composite itself"),
        ({"ensemble": [member(1, alias="x"), member(2)]}, RegistryError, "either `version` or `alias`"),
        ({"ensemble": [member(1, weight=0.5), member(2)]}, RegistryError, "a weight, or none"),
        (
            {"ensemble": [member(1, weight=0), member(2, weight=1)]},
            RegistryError,
            "ensemble.0.weight: .*greater than 0",
        ),
        ({"ensemble": [member(1, weight=-1), member(2, weight=2)]}, RegistryError, "greater than 0"),
        ({"ensemble": [member(1, weight=float("nan")), member(2, weight=1)]}, RegistryError, "finite number"),
        ({"ensemble": [member(1, weight=1e308), member(2, weight=1e308)]}, RegistryError, "no finite sum"),
        ({"ensemble": [member(1), member(2)], "weights": [1, 2]}, RegistryError, "weights: Extra inputs"),
        ({}, RegistryError, "either `ensemble` or `segments`"),
        (seg({"when": "shop = 'plain'", **member(1)}), RegistryError, "otherwise: true"),
        (seg(OTHER), RegistryError, "no segment has a condition"),
        (seg(OTHER, {"when": "shop = 'plain'", **member(1)}), RegistryError, "for the last segment"),
        (seg({"when": "gift", **member(1)}, OTHER, unmatched="error"), RegistryError, "use only one of them"),
        (
            seg({"when": "gift", **member(1)}, {"when": " gift", **member(2)}, OTHER),
            RegistryError,
            "duplicate segments .*: the second would never match",
        ),
        (
            seg({"name": "otherwise", "when": "gift", **member(1)}, OTHER),
            RegistryError,
            "duplicate segments .*: the second would never match",
        ),
        (seg({"when": "gift", "otherwise": True, **member(1)}, OTHER), RegistryError, "either `when`"),
        (seg({"when": "gift", "version": 1}, OTHER), RegistryError, "a `model` or an `ensemble`"),
        (seg({"when": "shop = 'Zurich'", **member(1)}, OTHER), InvalidSample, "no row of the sample"),
    ],
)
def test_a_composition_that_means_nothing_is_refused(
    composed_template: Path, helpers: Any, composition: Any, error: type[Exception], told: str, sample: pd.DataFrame
) -> None:
    registry = helpers.Tiny(composed_template).registry
    before = registry.versions("returns")
    with pytest.raises(error, match=told):
        registry.compose("returns", composition, sample=sample)
    assert registry.versions("returns") == before
    assert not list((registry.root / "returns").glob(".incoming-*"))


@pytest.mark.parametrize(
    ("column", "told"), [("amount", r"lacks the features \['amount'\]"), ("note", "'note', which is not a column")]
)
def test_a_sample_without_a_column_is_refused(
    composed_template: Path, helpers: Any, column: str, told: str, sample: pd.DataFrame, segments: Any
) -> None:
    registry = helpers.Tiny(composed_template).registry
    with pytest.raises(SignatureMismatch, match=told):
        registry.compose("returns", segments, sample=sample.drop(columns=column))


COLUMNS = {"shop": "VARCHAR", "quantity": "INTEGER", "amount": "DOUBLE", "since": "DATE"}


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("region = 'x'", "reads 'region', which is not a column of the sample"),
        ("current_date > '2020-01-01'", "current_date"),
        ("now() > '2020-01-01'", r"uses now\(\)"),
        ("random() < 0.5", r"uses random\(\)"),
        ("quantity > avg(quantity)", r"uses avg\(\)"),
        ("row_number() OVER () > 5", "a window function"),
        ("shop IN (SELECT 'plain')", "a subquery"),
        ("shop = $x", "a parameter"),
        ("quantity +", "is not a single SQL expression"),
        ("quantity", "expected BOOLEAN"),
        ("quantity LIKE '5%'", "cannot be evaluated"),
        ("true) OR (true", "is not a single SQL expression"),
        ("quantity > 1) AND (true", "is not a single SQL expression"),
        ("true", "reads no column"),
        ("unnest([quantity]) > 1", r"uses unnest\(\)"),
        ("shop > version()", r"uses version\(\)"),
        ("since > current_localtimestamp()", r"uses current_localtimestamp\(\)"),
        ("age(since) > INTERVAL 1 YEAR", r"uses age\(\)"),
        ("since > today()", r"uses today\(\)"),
        ("len(list_filter([1, 2], x -> x > quantity)) > 0", "a lambda|reads 'x'"),
        ("orders.shop = 'plain'", "reads 'orders.shop'"),
        ("shop = 'plain'; SELECT 1", "is not a single SQL expression"),
        ("error('x') AND quantity > 0", r"uses error\(\)"),
    ],
)
def test_a_condition_that_is_none_of_a_row_is_refused(condition: str, told: str) -> None:
    with pytest.raises(SignatureMismatch, match=told):
        read_columns(condition, COLUMNS)


def test_a_condition_names_what_it_reads_whatever_the_case() -> None:
    assert read_columns("SHOP = 'quantity' AND \"Amount\" > 5", COLUMNS) == {"shop": "text", "amount": "number"}
    assert read_columns("Shop.upper() = 'PLAIN'", COLUMNS) == {"shop": "text"}


def test_members_that_do_not_score_alike_are_refused(composed: Any, helpers: Any, sample: pd.DataFrame) -> None:
    frame = helpers.orders(300, seed=9)

    def add(name: str, frame: pd.DataFrame = frame, **parameters: Any) -> ModelVersion:
        data = xgb.DMatrix(frame[["quantity", "amount"]], label=frame["quantity"] % 3)
        file = composed.root / f"{name}.ubj"
        xgb.train({"nthread": 1} | parameters, data, 2).save_model(file)
        return composed.registry.register(name, model=file, sample=frame, by="ada")

    add("number", objective="reg:squarederror")
    add("classes", objective="multi:softprob", num_class=3)
    texts = frame.assign(quantity=frame["gift"])
    data = xgb.DMatrix(
        texts[["quantity"]].astype(np.float32), label=texts["gift"], feature_names=["quantity"], feature_types=["i"]
    )
    xgb.train({"objective": "binary:logistic"}, data, 2).save_model(composed.root / "b.ubj")
    composed.registry.register("flag", model=composed.root / "b.ubj", sample=texts, by="ada")
    for name, told in (
        ("number", "objective binary:logistic, number v1 has reg:squarederror"),
        ("classes", "has outputs score, classes v1 has score_0, score_1, score_2"),
        ("flag", "feature 'quantity' is int to returns v1, but bool to flag v1"),
    ):
        with pytest.raises(SignatureMismatch, match=told):
            composed.registry.compose("returns", {"ensemble": [member(1), member(1, name)]}, sample=sample)
