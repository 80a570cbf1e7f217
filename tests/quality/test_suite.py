import pytest

from pip_dagster.quality.suite import Expectation, SuiteError, check_columns
from pip_dagster.quality.suite_file import load_suites

GOOD = """\
sources:
  weather:
    - type: expect_column_values_to_be_between
      name: wind_between
      kwargs: {column: wind_speed, min_value: 0, max_value: 200, mostly: 0.999}
      severity: warning
      description: an anemometer fault once reported 1048 mph
features:
  - {type: expect_column_values_to_not_be_null, kwargs: {column: "größe \\"q\\""}}
  - type: expect_column_values_to_be_between
    kwargs: {column: distance, min_value: 1}
    row_condition: {type: comparison, column: {name: origin}, operator: "==", parameter: JFK}
    meta: {name: distance_from_jfk}
  - type: expect_column_pair_values_a_to_be_greater_than_b
    kwargs:
      column_A: arrival
      column_B: departure
      row_condition:
        type: and
        conditions:
          - {type: nullity, column: {name: seats}, is_null: false}
          - {type: comparison, column: {name: seats}, operator: IN, parameter: [1, 2]}
predictions:
  - {type: expect_table_row_count_to_be_between, kwargs: {min_value: 500}, severity: critical}
"""


def load(tmp_path, text, columns=None):
    path = tmp_path / "expectations.yaml"
    path.write_text(text, encoding="utf-8")
    return load_suites(path, columns)


def refused(tmp_path, text, columns=None):
    with pytest.raises(SuiteError) as error:
        load(tmp_path, text, columns)
    return str(error.value)


def test_the_three_sections_are_read(tmp_path):
    suites = load(tmp_path, GOOD)
    (wind,) = suites.sources["weather"]
    assert (wind.id, wind.section, wind.severity) == ("wind_between", "sources.weather", "warning")
    assert wind.description.startswith("an anemometer")
    assert wind.origin.endswith("expectations.yaml:3")
    assert [e.id for e in suites.features] == [
        'größe "q".values_to_not_be_null',
        "distance_from_jfk",
        "arrival,departure.column_pair_values_a_to_be_greater_than_b",
    ]
    assert suites.features[0].severity == "critical"
    assert suites.features[1].columns == {"distance", "origin"}
    assert suites.features[2].columns == {"arrival", "departure", "seats"}
    assert suites.features[2].judged_columns == ("arrival", "departure")
    assert suites.predictions[0].columns == frozenset()
    assert hash(wind) == hash(wind)


def test_ids_are_stable_and_do_not_depend_on_order_or_limits(tmp_path):
    one = "features:\n- {type: expect_column_mean_to_be_between, kwargs: {column: a, min_value: 1}}\n"
    other = (
        "features:\n- {type: expect_column_values_to_be_unique, kwargs: {column: b}}\n"
        "- {severity: info, kwargs: {max_value: 9, column: a}, type: expect_column_mean_to_be_between}\n"
    )
    assert load(tmp_path, one).features[0].id == load(tmp_path, other).features[1].id == "a.mean_to_be_between"


def test_nothing_declared_is_an_empty_suite(tmp_path):
    assert load(tmp_path, "").features == ()
    assert load(tmp_path, "features:\n").features == ()


E_ = "features:\n  - type: expect_column_values_to_be_between\n    kwargs: {column: a, min_value: 1}\n"


def test_an_error_is_reported_once(tmp_path):
    with pytest.raises(SuiteError) as caught:
        load(tmp_path, E_ + "    extra: 1\n")
    assert "not valid YAML" not in str(caught.value)


IN_SET = "features:\n- type: expect_column_values_to_be_in_set\n  kwargs: {column: a, value_set: [DE]}\n"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("feature:\n- {}\n", 1, "unknown key 'feature' of the file; did you mean 'features'?"),
        (E_.replace("be_between", "be_betwen"), 2, "did you mean 'expect_column_values_to_be_between'"),
        (E_.replace("type:", "typo:"), 2, "unknown key 'typo'"),
        (E_ + "    severity: fatal\n", 4, "unknown severity 'fatal'; it must be one of critical, warning, info"),
        (E_ + "    extra: 1\n", 4, "unknown key 'extra'"),
        (E_.replace("min_value", "minimum"), 3, "unknown kwarg 'minimum'"),
        (E_.replace("min_value: 1", "mostly: 1.2"), 3, "`mostly` must be a number between 0 and 1, not 1.2"),
        (E_.replace("min_value: 1", "mostly: .nan"), 3, "`mostly` must be"),
        (E_.replace("min_value: 1", "min_value: [1]"), 3, "must be date or number, not [1]"),
        (E_.replace("min_value: 1", "min_value: low"), 3, "must be date or number, not 'low'"),
        (E_.replace("min_value: 1", "min_value: 012"), 3, "'min_value': YAML reads a number that begins with 0"),
        (E_.replace("min_value: 1", "min_value: 12:30"), 3, "'min_value': YAML reads digits with a colon"),
        (IN_SET.replace("[DE]", "[DE, NO]"), 3, "'value_set': YAML reads 'NO' as false. Write it in quotes, or false."),
        (IN_SET.replace("[DE]", "[[1, on]]"), 3, "'value_set': YAML reads 'on' as true"),
        (E_.replace("column: a, ", ""), 3, "needs the kwarg 'column'"),
        (E_ + E_.split("\n", 1)[1], 4, "two expectations of 'features' are called 'a.values_to_be_between'"),
        (E_ + "    name: 3\n", 4, "`name` must be text"),
        (E_ + "    row_condition: a > 1\n", 4, "must be a mapping"),
        (E_ + "    row_condition: {type: pass_through, pass_through_filter: a > 1}\n", 4, "comparison, nullity, and"),
        (E_ + "    row_condition: {type: nullity, column: {name: a}}\n", 4, "needs 'is_null'"),
        (E_ + "    row_condition: {type: comparison, column: {name: a}, operator: '=', parameter: 1}\n", 4, "operator"),
        (E_ + "    name: [\n", 5, "not valid YAML"),
        (E_ + "    name: a\n    name: b\n", 5, "given twice"),
        ("features: {a: 1}\n", 1, "must be a list"),
        ("sources:\n  - {}\n", 2, "must be a mapping"),
        ("features:\n- {type: expect_column_values_to_match_like_pattern, kwargs: {column: a}}\n", 2, "match_regex"),
        ("features:\n- {type: expect_column_values_to_be_increasing, kwargs: {column: a}}\n", 2, "have no order"),
        ("sources: {a: [{type: expect_column_values_to_be_decreasing, kwargs: {column: a}}]}\n", 1, "have no order"),
        ("features:\n- {type: expect_column_unique_value_count_to_be_between, kwargs: {column: a, min_value: 1.5}}\n",
         2, "must be integer, not 1.5"),
        ("features:\n- {type: expect_column_pair_values_to_be_equal, kwargs: {column_A: a, column_B: b, "
         "ignore_row_if: never}}\n", 2, "must be one of both_values_are_missing"),
    ],
)  # fmt: skip
def test_what_great_expectations_would_drop_or_misread_is_refused(tmp_path, text, line, said):
    message = refused(tmp_path, text)
    assert f"expectations.yaml:{line}: " in message
    assert said in message


def test_unknown_columns_are_refused_where_the_section_is_known(tmp_path):
    known = {"features": ["distance", "origin", "arrival", "departure", "seats"], "sources.weather": ["wind_speed"]}
    assert "expectations.yaml:9: unknown column 'größe \"q\"'" in refused(tmp_path, GOOD, known)
    known["features"].append('größe "q"')
    load(tmp_path, GOOD, known)
    message = refused(tmp_path, GOOD, known | {"sources.weather": ["wind_spd", "gust"]})
    assert "expectations.yaml:5: unknown column 'wind_speed'; did you mean 'wind_spd'?" in message
    known["features"].remove("seats")
    assert "unknown column 'seats'" in refused(tmp_path, GOOD, known)


def test_columns_are_checked_at_run_time_too(tmp_path):
    features = load(tmp_path, GOOD).features
    types = dict.fromkeys(["distance", "origin", "arrival", "departure", 'größe "q"', "seat"], "INTEGER")
    with pytest.raises(SuiteError, match=r"expectations.yaml:14: .*on column 'seats'.*did you mean 'seat'"):
        check_columns(features, types)
    check_columns(features, types | {"Seats": "INTEGER"})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SuiteError, match="gone.yaml cannot be read"):
        load_suites(tmp_path / "gone.yaml")


def test_expectations_can_be_made_in_code():
    e = Expectation("x", "features", "expect_column_values_to_be_unique", {"column": "k"})
    assert e.row_level and e.columns == {"k"}
