"""The core expectation types of Great Expectations, their kwargs, and which kwargs name columns.

Importing Great Expectations costs 6 to 13 s of CPU, too much for loading a code location. What loading needs to know is
in `expectation_types.json`, which this command generates from the installed version:

    python -m pip_dagster.quality.expectation_types

A test compares the file with the installed version.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Literal

Kind = Literal["map", "pair", "multicolumn", "aggregate", "table"]

TABLE = Path(__file__).with_name("expectation_types.json")

ROW_LEVEL: frozenset[Kind] = frozenset({"map", "pair", "multicolumn"})

COLUMN_KWARGS = ("column", "column_A", "column_B", "column_list")

# Types that cannot judge a data frame: they need SQL, or have no pandas implementation and always raise. Loading
# refuses them with a remedy, so that they are not errors in every run.
NOT_ON_FRAMES = {
    "expect_column_values_to_match_like_pattern": "use expect_column_values_to_match_regex",
    "expect_column_values_to_match_like_pattern_list": "use expect_column_values_to_match_regex_list",
    "expect_column_values_to_not_match_like_pattern": "use expect_column_values_to_not_match_regex",
    "expect_column_values_to_not_match_like_pattern_list": "use expect_column_values_to_not_match_regex_list",
    "expect_query_results_to_match_comparison": "compute the comparison in the feature SQL and expect its value",
    "expect_table_row_count_to_equal_other_table": "count the other table in the feature SQL and expect that column",
    "unexpected_rows_expectation": "compute a boolean column in the feature SQL and expect its value",
}

# Types that compare a row with the row before it. Rows have no order here, so these types can be evaluated but not
# declared.
ORDER_DEPENDENT = dict.fromkeys(
    ("expect_column_values_to_be_increasing", "expect_column_values_to_be_decreasing"),
    "rows have no order: compute the step in the feature SQL, value - lag(value) OVER (PARTITION BY … ORDER BY …), and "
    "declare an expectation on it",
)


# Types that judge a column as a whole although their class does not show it. The two with "values" in their name check
# the column's type and count no rows.
WHOLE_COLUMN = (
    "expect_column_quantile_values_to_be_between",
    "expect_column_type_to_be",
    "expect_column_values_to_be_of_type",
    "expect_column_values_to_be_in_type_list",
)


@dataclass(frozen=True)
class Kwarg:
    """A kwarg of an expectation: the JSON types it takes (`date` for dates and timestamps), or its choices."""

    types: frozenset[str]
    choices: tuple[str, ...]
    required: bool


@dataclass(frozen=True)
class ExpectationType:
    """An expectation type; `kind` is what it judges: a row (map, pair, multicolumn), a column or the table."""

    name: str
    kind: Kind
    kwargs: Mapping[str, Kwarg]
    columns: tuple[str, ...]

    @property
    def row_level(self) -> bool:
        """Whether it judges every row, so that single rows can be quarantined."""
        return self.kind in ROW_LEVEL

    @property
    def about_columns(self) -> bool:
        """Whether it judges which columns the table has, and thus has one verdict for all rows."""
        return self.kind == "table" and "row_count" not in self.name


@cache
def expectation_types() -> Mapping[str, ExpectationType]:
    """Every type that is known, by name, without importing Great Expectations."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))["types"]
    return MappingProxyType(
        {
            name: ExpectationType(
                name=name,
                kind=entry["kind"],
                kwargs={
                    k: Kwarg(frozenset(v["types"]), tuple(v.get("choices", ())), v.get("required", False))
                    for k, v in entry["kwargs"].items()
                },
                columns=tuple(entry["columns"]),
            )
            for name, entry in table.items()
        }
    )


@cache
def imported() -> ModuleType:
    """Great Expectations with its analytics off; the first call costs 6 to 13 s."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read on import and when a context is created
    import great_expectations

    return great_expectations


def generate() -> dict[str, Any]:
    """The table as the installed Great Expectations defines it; imports Great Expectations."""
    gx = imported()
    from great_expectations.expectations import expectation as base
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    kinds: list[tuple[type, Kind]] = [
        (base.ColumnMapExpectation, "map"),
        (base.ColumnPairMapExpectation, "pair"),
        (base.MulticolumnMapExpectation, "multicolumn"),
        (base.ColumnAggregateExpectation, "aggregate"),
        (base.BatchExpectation, "table"),
    ]
    common = {*base.BatchExpectation.__fields__, "row_condition", "condition_parser", "library_metadata"}
    types = {}
    for name in sorted(list_registered_expectation_implementations()):
        impl = get_expectation_impl(name)
        if name in NOT_ON_FRAMES or not impl.__module__.startswith("great_expectations.expectations.core"):
            continue
        kind = next(kind for cls, kind in kinds if issubclass(impl, cls))
        if name in WHOLE_COLUMN:
            kind = "aggregate"
        schema = impl.schema()
        kwargs = {
            field: _kwarg(schema["properties"][field], schema, required=field in schema.get("required", ()))
            for field in impl.__fields__
            if field not in common
        }
        # A column that a table-level type names is what it expects, so its absence is a verdict and not an error.
        columns = [c for c in COLUMN_KWARGS if c in kwargs and kind != "table"]
        types[name] = {"kind": kind, "columns": columns, "kwargs": kwargs}
    return {"great_expectations": ".".join(gx.__version__.split(".")[:2]), "types": types}


def _kwarg(prop: dict[str, Any], schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    options = [o for option in prop.get("anyOf", [prop]) for o in option.get("anyOf", [option])]
    options = [schema["definitions"][o["$ref"].rsplit("/", 1)[1]] if "$ref" in o else o for o in options]
    types = {"date" if "format" in o else o.get("type", "any") for o in options}
    if "oneOf" in str(prop) or "any" in types:
        types = {"array"} if "Value Set" in str(prop) else {"any"}
    if len(types) > 1:
        types -= {"object"}  # a suite parameter ({"$PARAMETER": name}): a pipeline's suite has none
    choices = [c for o in options for c in o.get("enum", ())]
    entry: dict[str, Any] = {"types": sorted(types)}
    return entry | ({"choices": choices} if choices else {}) | ({"required": True} if required else {})


if __name__ == "__main__":
    TABLE.write_text(json.dumps(generate(), indent=1) + "\n", encoding="utf-8")
