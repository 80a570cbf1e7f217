"""encode, then predict, equals XGBoost's own scoring of a pandas frame; and what encode refuses."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost as xgb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pip_dagster.registry import Feature, Signature, SignatureMismatch
from pip_dagster.registry.encoding import encode

LABELS = st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=6), min_size=2, max_size=8)
VALUES = st.floats(width=32, allow_infinity=False) | st.none()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), labels=LABELS.map(lambda texts: list(dict.fromkeys(texts))).filter(lambda x: len(x) > 1))
def test_encode_then_predict_equals_pandas_categoricals(train, wrap, data, labels):
    rows = 60
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "c": pd.Categorical(rng.choice(labels, rows), categories=labels),
            "x": rng.normal(size=rows),
            "n": rng.integers(-(2**40), 2**40, rows),
            "b": rng.random(rows) > 0.5,
        }
    )
    onehot = data.draw(st.integers(1, 8))
    booster = train(frame, rng.random(rows), rounds=3, max_cat_to_onehot=onehot, min_child_weight=0)
    predictor = wrap(booster, frame)
    fresh = pd.DataFrame(
        {
            "c": pd.Categorical(data.draw(st.lists(st.sampled_from([*labels, None]), min_size=9, max_size=9)), labels),
            "x": pd.Series(data.draw(st.lists(VALUES, min_size=9, max_size=9)), dtype="float64"),
            "n": rng.integers(-(2**40), 2**40, 9),
            "b": rng.random(9) > 0.5,
        }
    )
    expected = booster.predict(xgb.DMatrix(fresh, enable_categorical=True))
    table = pa.Table.from_pandas(fresh, preserve_index=False)
    strings = table.set_column(0, "c", table.column("c").cast(pa.string()))
    for variant in (table, strings, strings.select(["b", "n", "x", "c"]), _chunked(strings)):
        np.testing.assert_array_equal(predictor.predict(encode(variant, predictor.signature)), expected)


def _chunked(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 4), table.slice(4)])


def _signature(**types: str) -> Signature:
    features = tuple(
        Feature(name=name, type=kind, categories=("a", "b") if kind == "category" else None)
        for name, kind in types.items()
    )
    return Signature(
        engine="xgboost",
        task="regression",
        features=features,
        objective="reg:squarederror",
        booster="gbtree",
        outputs=("score",),
        iteration_range=(0, 1),
        xgboost_version="3.2.0",
    )


def test_the_matrix_is_float32_in_manifest_order_with_nan_for_null():
    table = pa.table({"y": [True, None], "c": ["b", None], "x": [2**24 + 1, None], "z": [None, None]})
    X = encode(table, _signature(x="int", y="bool", c="category", z="float"))
    assert X.dtype == np.float32
    assert X.flags.c_contiguous
    np.testing.assert_array_equal(X, np.array([[2**24, 1, 1, np.nan], [np.nan] * 4], dtype=np.float32))


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        (pa.array(["a", "x", "y"]), "category", r"2 values are not in its category list, such as \['x', 'y'\]"),
        (pa.array([1.0, 2.0]), "category", "only strings, integers and booleans"),
        (pa.array(["1"]), "int", "cast it to a number in SQL"),
        (pa.array([0], pa.date32()), "float", "cast it to a number in SQL"),
        (pa.array([float("inf")]), "float", "infinite as float32"),
        (pa.array([1e300]), "float", "infinite as float32"),
    ],
)
def test_what_no_model_takes_is_refused(column, kind, message):
    with pytest.raises(SignatureMismatch, match=message):
        encode(pa.table({"f": column}), _signature(f=kind))


def test_a_missing_column_is_refused():
    with pytest.raises(SignatureMismatch, match="lacks column 'f'"):
        encode(pa.table({"g": [1]}), _signature(f="int"))
