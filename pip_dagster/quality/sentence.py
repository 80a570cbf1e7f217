"""An expectation in plain words, for people; without Great Expectations, whose import takes seconds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pip_dagster.quality.suite import Expectation

_SHOWN = 12

# `{range}`, `{set}` and `{each}` are composed below; other names are kwargs.
_TEXTS = {
    "expect_column_distinct_values_to_be_in_set": "{column} has no values other than {set}",
    "expect_column_distinct_values_to_contain_set": "{column} has each of the values {set}",
    "expect_column_distinct_values_to_equal_set": "{column} has the values {set}, each of them and no others",
    "expect_column_max_to_be_between": "the largest {column} is {range}",
    "expect_column_mean_to_be_between": "the mean of {column} is {range}",
    "expect_column_median_to_be_between": "the median of {column} is {range}",
    "expect_column_min_to_be_between": "the smallest {column} is {range}",
    "expect_column_stdev_to_be_between": "the standard deviation of {column} is {range}",
    "expect_column_sum_to_be_between": "the sum of {column} is {range}",
    "expect_column_unique_value_count_to_be_between": "the number of different values of {column} is {range}",
    "expect_column_proportion_of_non_null_values_to_be_between": "the share of {column} that is not missing is {range}",
    "expect_column_proportion_of_unique_values_to_be_between": "the share of different values in {column} is {range}",
    "expect_column_most_common_value_to_be_in_set": "the most common {column} is one of {set}",
    "expect_column_pair_values_a_to_be_greater_than_b": "{each}{column_A} is greater than {column_B}",
    "expect_column_pair_values_to_be_equal": "{each}{column_A} equals {column_B}",
    "expect_column_to_exist": "the table has a column {column}",
    "expect_column_type_to_be": "{column} has the type {type_}",
    "expect_column_values_to_be_of_type": "{column} has the type {type_}",
    "expect_column_value_lengths_to_be_between": "the length of {each}{column} is {range}",
    "expect_column_value_lengths_to_equal": "the length of {each}{column} is {value}",
    "expect_column_values_to_be_between": "{each}{column} is {range}",
    "expect_column_values_to_be_in_set": "{each}{column} is one of {set}",
    "expect_column_values_to_be_null": "{each}{column} is missing",
    "expect_column_values_to_be_unique": "{each}{column} occurs once",
    "expect_column_values_to_match_regex": "{each}{column} matches {regex}",
    "expect_column_values_to_match_strftime_format": "{each}{column} has the format {strftime_format}",
    "expect_column_values_to_not_be_in_set": "{each}{column} is none of {set}",
    "expect_column_values_to_not_be_null": "{each}{column} is present",
    "expect_column_values_to_not_match_regex": "{each}{column} does not match {regex}",
    "expect_compound_columns_to_be_unique": "{each}combination of {column_list} occurs once",
    "expect_multicolumn_sum_to_equal": "the sum of {column_list} in {each} row is {sum_total}",
    "expect_multicolumn_values_to_be_equal": "{column_list} are equal in each row",
    "expect_select_column_values_to_be_unique_within_record": "{column_list} differ from each other in each row",
    "expect_table_column_count_to_be_between": "the number of columns is {range}",
    "expect_table_column_count_to_equal": "the number of columns is {value}",
    "expect_table_columns_to_match_ordered_list": "the columns are {column_list}, in this order",
    "expect_table_row_count_to_be_between": "the number of rows is {range}",
    "expect_table_row_count_to_equal": "the number of rows is {value}",
}


def sentence(expectation: Expectation) -> str:
    """What is expected, as a sentence without a full stop: such as `Every seats is at least 15`."""
    given = dict(expectation.kwargs)
    words = {name: _value(value) for name, value in given.items()}
    words |= {"range": _range(given), "set": _value(given.get("value_set", ())), "each": _each(given)}
    try:
        text = _TEXTS[expectation.type].format_map(words)
    except KeyError:  # a rare type, or a kwarg that is optional for it
        listed = ", ".join(f"{name} {text}" for name, text in words.items() if name in given and name != "mostly")
        text = f"{expectation.type.removeprefix('expect_').replace('_', ' ')}: {listed}"
    if given.get("mostly", 1) != 1:
        text = f"in at least {100 * given['mostly']:g}% of the rows, {text}"
    if expectation.row_condition:
        text += f", where {_condition(expectation.row_condition)}"
    begins = text.startswith(("every ", "in ", "the "))  # else with the name of a column
    return text[0].upper() + text[1:] if begins else text


def observed_in_words(observed: Any) -> str:
    """An observed value; numbers with at most four places."""
    return _value(observed)


def _each(given: Mapping[str, Any]) -> str:
    return "every " if given.get("mostly", 1) == 1 else ""


def _range(given: Mapping[str, Any]) -> str:
    low, high = given.get("min_value"), given.get("max_value")
    strict_low, strict_high = bool(given.get("strict_min")), bool(given.get("strict_max"))
    if low is None and high is None:
        return "anything"
    above = f"{'more than' if strict_low else 'at least'} {_value(low)}"
    below = f"{'less than' if strict_high else 'at most'} {_value(high)}"
    if high is None:
        return above
    if low is None:
        return below
    return f"{above} and {below}" if strict_low or strict_high else f"between {_value(low)} and {_value(high)}"


def _condition(condition: Mapping[str, Any]) -> str:
    if "conditions" in condition:
        return f" {condition.get('type', 'and')} ".join(_condition(each) for each in condition["conditions"])
    column, operator = condition["column"]["name"], str(condition.get("operator", "")).lower()
    shown = {"==": "is", "!=": "is not"}.get(operator, operator.replace("_", " "))
    parameter = condition.get("parameter")
    return f"{column} {shown}" + ("" if parameter is None else f" {_value(parameter)}")


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4f}".rstrip("0").rstrip(".") if 1e-4 <= abs(value) < 1e15 or not value else f"{value:.4g}"
    if isinstance(value, Mapping):
        if [*value] == ["$PARAMETER"]:
            return _parameter(str(value["$PARAMETER"]))
        return ", ".join(f"{name}: {_value(each)}" for name, each in value.items())
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str):
        listed = [_value(each) for each in value]
        more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
        return ", ".join(listed[:_SHOWN]) + more
    return str(value)


def _parameter(text: str) -> str:
    """`score_mean - 0.22` in words: the mean score of training less 0.22."""
    found = re.fullmatch(r"\s*(\w+)\s*([-+*])\s*(\S+)\s*", text)
    name = {"score_mean": "the mean score in training"}
    if not found:
        return name.get(text.strip(), text)
    return f"{name.get(found[1], found[1])} {found[2].replace('-', '−')} {found[3]}"
