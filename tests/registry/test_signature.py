"""Which features a model has, of which types, with which category lists, and what is refused."""

import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost as xgb

from pip_dagster.flow.guard import encode_features
from pip_dagster.registry import Registry, SignatureMismatch
from pip_dagster.registry import sample as samples
from pip_dagster.registry.encoding import encode, sql_columns
from pip_dagster.registry.engines import engine_named


def test_features_come_in_the_boosters_order_with_types(wrap, booster, frame):
    shuffled = frame[["carrier", "night", "distance", "stops"]].assign(extra=1)
    features = wrap(booster, shuffled).signature.features
    assert [(f.name, f.type) for f in features] == [
        ("distance", "float"),
        ("stops", "int"),
        ("night", "bool"),
        ("carrier", "category"),
    ]
    assert features[3].categories == ("UA", "AA", "ZZ", "B6")


def test_the_boosters_own_list_serves_where_the_sample_holds_strings(wrap, booster, frame):
    strings = frame.assign(carrier=frame.carrier.astype(str))
    assert wrap(booster, strings).signature.features[3].categories == ("UA", "AA", "ZZ", "B6")


def test_a_sample_that_dropped_unused_categories_is_taken(wrap, booster, frame):
    trimmed = frame.assign(carrier=frame.carrier.cat.remove_unused_categories())
    assert wrap(booster, trimmed).signature.features[3].categories == ("UA", "AA", "ZZ", "B6")


@pytest.mark.parametrize("source", ["argument", "sample"])
def test_reordered_categories_are_refused(wrap, booster, frame, source):
    order = ["AA", "UA", "ZZ", "B6"]
    with pytest.raises(SignatureMismatch, match="'carrier': code 0 is 'AA' .* but 'UA' in the Booster"):
        if source == "argument":
            wrap(booster, frame, categories={"carrier": order})
        else:
            wrap(booster, frame.assign(carrier=frame.carrier.cat.reorder_categories(order)))


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"carrier": ["UA", "AA"]}, "has 2 entries, the Booster was trained with 4"),
        ({"carrier": ["UA", "AA", "UA", "B6"]}, "more than once"),
        ({"carrier": []}, "is empty"),
        ({"carier": ["UA"]}, r"\['carier'\], which are not category features"),
        ({"stops": ["0"]}, r"\['stops'\], which are not category features"),
    ],
)
def test_category_lists_that_do_not_fit_are_refused(wrap, booster, frame, lists, message):
    with pytest.raises(SignatureMismatch, match=message):
        wrap(booster, frame, categories=lists)


def test_non_ascii_categories_score_right_whatever_the_model_file_says(train, wrap, label):
    rng = np.random.default_rng(1)
    names = ["Zürich", "東京", "Ålesund", "plain"]
    frame = pd.DataFrame({"city": pd.Categorical(rng.choice(names, len(label)), categories=names)})
    booster = train(frame, rng.random(len(label)), max_cat_to_onehot=1)
    # Training codes, not strings: XGBoost 3.2 garbles the strings.
    codes = frame.city.cat.codes.to_numpy().astype(np.float32)[:, None]
    expected = booster.predict(xgb.DMatrix(codes, feature_names=["city"], feature_types=["c"]))
    for sample, lists in ((frame, {}), (frame.astype(str), {"city": names})):
        predictor = wrap(booster, sample, categories=lists)
        assert predictor.signature.features[0].categories == tuple(names)
        table = pa.Table.from_pandas(sample, preserve_index=False)
        np.testing.assert_array_equal(predictor.predict(encode(table, predictor.signature)), expected)
    if tuple(map(int, xgb.__version__.split("."))) < (3, 4, 0):
        with pytest.raises(SignatureMismatch, match=r"has garbled the non-ASCII list .* pass categories="):
            wrap(booster, frame.astype(str))
        with pytest.raises(SignatureMismatch, match="has 3 entries, the Booster was trained with 4"):
            wrap(booster, frame, categories={"city": names[:3]})


def test_a_booster_trained_on_codes_needs_the_list(wrap, frame, label):
    codes = np.column_stack([frame.carrier.cat.codes, frame.stops]).astype(np.float32)
    data = xgb.DMatrix(codes, label=label, feature_names=["carrier", "stops"], feature_types=["c", "q"])
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1}, data, 3)
    strings = frame.assign(carrier=frame.carrier.astype(str))
    with pytest.raises(SignatureMismatch, match=r"'carrier' is a category, .* pass categories="):
        wrap(booster, strings)
    predictor = wrap(booster, strings, categories={"carrier": ["UA", "AA", "ZZ", "B6"]})
    table = pa.Table.from_pandas(strings)
    np.testing.assert_array_equal(predictor.predict(encode(table, predictor.signature)), booster.predict(data))


def test_integer_categories_are_strings_of_their_values(train, wrap, label):
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"gate": pd.Categorical(rng.choice([30, 10, 20], len(label)), categories=[30, 10, 20])})
    booster = train(frame, rng.random(len(label)), max_cat_to_onehot=1)
    expected = booster.predict(xgb.DMatrix(frame, enable_categorical=True))
    for sample in (frame, frame.astype(int), frame.astype(int).astype(str)):
        predictor = wrap(booster, sample)
        assert predictor.signature.features[0].categories == ("30", "10", "20")
        table = pa.Table.from_pandas(sample, preserve_index=False)
        np.testing.assert_array_equal(predictor.predict(encode(table, predictor.signature)), expected)


def test_an_unnamed_booster_needs_names(wrap, label):
    X = np.column_stack([label, label + 1]).astype(np.float32)
    booster = xgb.train({"nthread": 1}, xgb.DMatrix(X, label=label), 2)
    sample = pd.DataFrame(X, columns=["a", "b"])
    with pytest.raises(SignatureMismatch, match=r"does not name its features \(2\)"):
        wrap(booster, sample)
    with pytest.raises(SignatureMismatch, match="1 feature names for a Booster of 2"):
        wrap(booster, sample, feature_names=["a"])
    with pytest.raises(SignatureMismatch, match="must be distinct"):
        wrap(booster, sample.assign(A=1), feature_names=["a", "A"])
    predictor = wrap(booster, sample, feature_names=["a", "b"])
    np.testing.assert_array_equal(predictor.predict(X), booster.predict(xgb.DMatrix(X)))


def test_names_that_contradict_the_booster_are_refused(wrap, booster, frame):
    with pytest.raises(SignatureMismatch, match="are not the Booster's own"):
        wrap(booster, frame, feature_names=["stops", "distance", "night", "carrier"])


def test_a_sample_without_a_feature_is_refused(wrap, booster, frame):
    with pytest.raises(SignatureMismatch, match=r"lacks 1 of 4 features: \['night'\]"):
        wrap(booster, frame.drop(columns="night"))


def test_a_number_that_is_text_in_the_sample_is_refused(wrap, booster, frame):
    with pytest.raises(SignatureMismatch, match="'stops' is .*string in the sample"):
        wrap(booster, frame.assign(stops=frame.stops.astype(str)))


def test_a_doubled_column_is_refused(wrap, booster, frame):
    table = pa.Table.from_pandas(frame, preserve_index=False)
    doubled = table.append_column("stops", table.column("stops"))
    with pytest.raises(SignatureMismatch, match=r"holds the columns \['stops'\] more than once"):
        wrap(booster, doubled)


def test_decimals_are_floats_and_an_all_null_column_keeps_the_boosters_type(wrap, booster, frame):
    table = pa.Table.from_pandas(frame, preserve_index=False)
    amounts = pa.array([decimal.Decimal("1.50")] * len(frame), pa.decimal128(10, 2))
    table = table.set_column(0, "distance", amounts).set_column(1, "stops", pa.nulls(len(frame)))
    signature = wrap(booster, table).signature
    assert [feature.type for feature in signature.features[:2]] == ["float", "int"]
    X = encode(table, signature)
    assert (X[:, 0] == 1.5).all()
    assert np.isnan(X[:, 1]).all()


def test_a_type_is_the_wider_of_the_boosters_and_the_samples(wrap, booster, frame):
    widened = frame.assign(night=frame.night.astype(int), stops=frame.stops.astype(float))
    types = [feature.type for feature in wrap(booster, widened).signature.features]
    assert types == ["float", "float", "int", "category"]


# A column of a sample → whether a feature that was trained on numbers takes it.
NUMBERS = {
    "int8": (pa.array([1, 2, None], pa.int8()), True),
    "uint64 beyond 2^53": (pa.array([2**63 + 5, 1, 0], pa.uint64()), True),
    "decimal": (pa.array([decimal.Decimal("1.5"), None, None], pa.decimal128(10, 2)), True),
    "HUGEINT as DECIMAL": (pa.array([decimal.Decimal(10**30), None, None], pa.decimal128(38, 0)), True),
    "float": (pa.array([0.5, None, None], pa.float32()), True),
    "null": (pa.nulls(3), True),
    "bool": (pa.array([True, False, None]), False),
    "date": (pa.array([1, 2, 3], pa.date32()), False),
    "timestamp": (pa.array([1, 2, 3], pa.timestamp("us")), False),
    "text of digits": (pa.array(["1", "2", "3"]), False),
    "list": (pa.array([[1], [2], [3]]), False),
    "struct": (pa.array([{"a": 1}] * 3), False),
    "dictionary of numbers": (pa.array([1, 2, 1]).dictionary_encode(), False),
}


@pytest.mark.parametrize("what", NUMBERS)
@pytest.mark.parametrize("trained", ["int", "float", "q", "i"])
def test_a_sample_that_is_taken_is_scored_by_a_pipeline_with_its_types(wrap, what, trained):
    """What registration takes, the guard takes: the feature SQL gives the columns of the sample."""
    column, is_number = NUMBERS[what]
    types = None if trained == "q" else [trained]
    data = xgb.DMatrix(np.arange(8.0)[:, None], label=np.arange(8.0), feature_names=["x"], feature_types=types)
    booster = xgb.train({"nthread": 1, "verbosity": 0}, data, 2)
    table = pa.table({"x": column})
    try:
        signature = wrap(booster, table).signature
        samples.check_types(table, signature)
    except SignatureMismatch as error:
        assert not is_number and "'x'" in str(error)
        assert what != "bool" or trained in ("int", "float")
        return
    assert is_number or what == "bool"
    if what == "null":  # without a type of its own
        return
    assert encode_features(
        signature.features, sql_columns(table, ["x"]), engine_named("xgboost").matrix, where="the pipeline"
    )


def test_an_offset_that_is_boolean_is_refused(wrap, booster, frame):
    table = pa.Table.from_pandas(frame.assign(exposed=True), preserve_index=False)
    signature = wrap(booster, frame).signature.model_copy(update={"offset": "exposed"})
    with pytest.raises(SignatureMismatch, match=r"\['exposed'\] are BOOLEAN in the sample"):
        samples.check_types(table, signature)


def test_registration_refuses_boolean_where_the_model_takes_numbers(tmp_path, train, frame, label):
    booster = train(frame.assign(night=frame.night.astype(float)), label)
    booster.save_model(tmp_path / "model.ubj")
    registry = Registry(tmp_path / "registry")
    with pytest.raises(SignatureMismatch, match=r"\['night'\] are BOOLEAN in the sample, .*Cast them to 0 and 1"):
        registry.register("flights", model=tmp_path / "model.ubj", sample=frame, by="ada")
