"""Suite parameters, as Great Expectations writes them: a limit taken from the model's training reference.

`min_value: {$PARAMETER: score_mean - 0.1}` stands for the mean score of the training sample minus 0.1. Great
Expectations evaluates any expression; here it is a name with at most one number added, subtracted or multiplied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pip_dagster.quality.suite import Expectation, SuiteError, suggest

KEY = "$PARAMETER"
_EXPRESSION = re.compile(r"^\s*([A-Za-z_]\w*)\s*(?:([-+*])\s*(\d+(?:\.\d+)?)\s*)?$")


def is_parameter(value: Any) -> bool:
    """Whether a kwarg's value is a parameter."""
    return isinstance(value, dict) and set(value) == {KEY}


def check_expression(value: Mapping[str, Any]) -> str | None:
    """What is wrong with a parameter's expression; None if it is valid."""
    text = value[KEY]
    if isinstance(text, str) and _EXPRESSION.match(text):
        return None
    return f"{KEY} must be a name, or a name with one number (score_mean - 0.1), not {text!r}"


def with_parameters(expectations: Iterable[Expectation], known: Mapping[str, float]) -> tuple[Expectation, ...]:
    """The expectations with parameters replaced by their values.

    Raises:
        SuiteError: a parameter is not in `known`.
    """
    return tuple(
        replace(e, kwargs={key: _value(e, value, known) for key, value in e.kwargs.items()})
        if any(map(is_parameter, e.kwargs.values()))
        else e
        for e in expectations
    )


def _value(expectation: Expectation, value: Any, known: Mapping[str, float]) -> Any:
    if not is_parameter(value):
        return value
    match = _EXPRESSION.match(value[KEY])
    assert match, value
    name, operator, number = match.groups()
    if name not in known:
        raise SuiteError(
            f"{expectation.origin}: {expectation.id!r} uses the parameter {name!r}, which the model's training "
            f"reference does not have{suggest(name, known)}"
        )
    if operator is None:
        return known[name]
    return {"+": known[name] + float(number), "-": known[name] - float(number), "*": known[name] * float(number)}[
        operator
    ]
