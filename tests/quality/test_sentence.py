"""Each declared expectation is a sentence that a person can read."""

import pytest

from pip_dagster.quality.expectation_types import ORDER_DEPENDENT, expectation_types
from pip_dagster.quality.sentence import observed_in_words, sentence
from pip_dagster.quality.suite import Expectation

COMPARED = {"type": "comparison", "column": {"name": "shop"}, "operator": "==", "parameter": "a"}


@pytest.mark.parametrize(
    ("kind", "kwargs", "said"),
    [
        ("column_values_to_be_between", {"column": "x", "max_value": 1200}, "Every x is at most 1,200"),
        ("column_values_to_be_between", {"column": "x", "min_value": 0, "strict_min": True}, "Every x is more than 0"),
        (
            "column_values_to_not_be_null",
            {"column": "x", "mostly": 0.975},
            "In at least 97.5% of the rows, x is present",
        ),
        ("column_to_exist", {"column": "x"}, "The table has a column x"),
        ("column_values_to_be_in_set", {"column": "x", "value_set": ["a", 1]}, "Every x is one of a, 1"),
        ("compound_columns_to_be_unique", {"column_list": ["a", "b"]}, "Every combination of a, b occurs once"),
        (
            "column_mean_to_be_between",
            {"column": "x", "min_value": {"$PARAMETER": "score_mean - 0.1"}},
            "The mean of x is at least the mean score in training − 0.1",
        ),
        (
            "column_value_z_scores_to_be_less_than",
            {"column": "x", "threshold": 3, "double_sided": True},
            "column value z scores to be less than: column x, threshold 3, double_sided true",
        ),
    ],
)
def test_in_words(kind, kwargs, said):
    assert sentence(Expectation("x", "features", f"expect_{kind}", kwargs)) == said


def test_a_row_condition_follows():
    given = Expectation("x", "features", "expect_column_values_to_be_unique", {"column": "x"}, row_condition=COMPARED)
    assert sentence(given) == "Every x occurs once, where shop is a"


def test_every_type_has_a_sentence():
    for name, of in expectation_types().items():
        if name not in ORDER_DEPENDENT:
            given = {key: ["a"] if "list" in key or "set" in key else 1 for key in of.kwargs if key != "mostly"}
            assert "{" not in sentence(Expectation("x", "features", name, given)), name


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.20219253, "0.2022"),
        (1.23e-6, "1.23e-06"),
        (0.0, "0"),
        (5.0, "5"),
        (12345, "12,345"),
        ([0.5, None], "0.5, nothing"),
    ],
)
def test_numbers_have_four_places(value, said):
    assert observed_in_words(value) == said
