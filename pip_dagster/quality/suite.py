"""The declared expectations, as values: checked when loaded, without importing Great Expectations."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from pip_dagster.errors import DeclarationError
from pip_dagster.quality.expectation_types import expectation_types

Severity = Literal["critical", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)

# Types of columns of any type, which observe a number or a share of values.
COUNTS = frozenset(
    {
        "expect_column_unique_value_count_to_be_between",
        "expect_column_proportion_of_unique_values_to_be_between",
        "expect_column_proportion_of_non_null_values_to_be_between",
    }
)
_OF_TYPE = "expect_column_values_to_be_of_type"


class SuiteError(DeclarationError, ValueError):
    """A suite is invalid; the message names the file, line and key, what was expected and the remedy."""


@dataclass(frozen=True)
class Expectation:
    """One declared expectation: Great Expectations' own type and kwargs.

    `id` is unique in its section and stable: quarantine and history refer to it. `section` is `features`,
    `predictions` or `sources.<name>`. `origin` is the file and line it was read from.
    """

    id: str
    section: str
    type: str
    kwargs: dict[str, Any] = field(hash=False)
    severity: Severity = "critical"
    row_condition: dict[str, Any] | None = field(default=None, hash=False)
    description: str = ""
    origin: str = field(default="", compare=False)

    @property
    def columns(self) -> frozenset[str]:
        """Every column that it reads, including those of its row condition."""
        return frozenset(self.judged_columns) | condition_columns(self.row_condition)

    @property
    def judged_columns(self) -> tuple[str, ...]:
        """The columns whose values it judges, in declared order; none for a table-level type."""
        names: list[str] = []
        for kwarg in expectation_types()[self.type].columns:
            value = self.kwargs.get(kwarg)
            names.extend([value] if isinstance(value, str) else value or [])
        return tuple(dict.fromkeys(names))

    @property
    def counts(self) -> bool:
        """Whether what it observes is a number of rows or columns, a share or a type, and no value of a column."""
        return not self.judged_columns or self.type in {*COUNTS, _OF_TYPE}

    def on(self, available: Collection[str]) -> Expectation:
        """The same, with its columns spelled as those of a table: as in SQL, `Price` and `price` are one name."""
        by_folded = {name.lower(): name for name in available}
        names = {name: by_folded[name.lower()] for name in self.columns if name.lower() in by_folded}
        if all(name == found for name, found in names.items()):
            return self
        kwargs = dict(self.kwargs)
        for kwarg in expectation_types()[self.type].columns:
            value = kwargs.get(kwarg)
            if isinstance(value, str):
                kwargs[kwarg] = names.get(value, value)
            elif value is not None:
                kwargs[kwarg] = [names.get(each, each) for each in value]
        return replace(self, kwargs=kwargs, row_condition=_condition_on(self.row_condition, names))

    @property
    def row_level(self) -> bool:
        """Whether it judges single rows, so that the rows that break it can be named."""
        return expectation_types()[self.type].row_level


@dataclass(frozen=True)
class Suites:
    """The three sections of a pipeline's `expectations.yaml`."""

    sources: Mapping[str, tuple[Expectation, ...]] = field(default_factory=dict)
    features: tuple[Expectation, ...] = ()
    predictions: tuple[Expectation, ...] = ()


def check_columns(expectations: Iterable[Expectation], available: Mapping[str, str]) -> None:
    """Check that a table, given as column name to type, has all columns of the expectations.

    Raises:
        SuiteError: columns are missing. The message names each with its expectation and close matches.
    """
    problems = [
        f"{e.origin or e.section}: expectation {e.id!r} of {e.section} is on column {name!r}, which does not exist"
        f"{suggest(name, available)}"
        for e in (each.on(available) for each in expectations)
        for name in sorted(e.columns - set(available))
    ]
    if problems:
        raise SuiteError("\n".join(problems))


def _condition_on(condition: dict[str, Any] | None, names: Mapping[str, str]) -> dict[str, Any] | None:
    if condition is None:
        return None
    if "conditions" in condition:
        return condition | {"conditions": [_condition_on(each, names) for each in condition["conditions"]]}
    column = condition["column"]
    return condition | {"column": column | {"name": names.get(column["name"], column["name"])}}


def condition_columns(condition: Mapping[str, Any] | None) -> frozenset[str]:
    """The columns that a row condition compares."""
    if condition is None:
        return frozenset()
    if "conditions" in condition:
        return frozenset().union(*(condition_columns(c) for c in condition["conditions"]))
    return frozenset({condition["column"]["name"]})


def suggest(word: str, known: Collection[str]) -> str:
    """`; did you mean …?`, or the list of known words."""
    near = difflib.get_close_matches(str(word), [str(k) for k in known], n=3, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(repr(n) for n in near)}?"
    listed = sorted(map(str, known))
    return f"; there is {', '.join(listed[:12])}{', …' if len(listed) > 12 else ''}" if listed else ""
