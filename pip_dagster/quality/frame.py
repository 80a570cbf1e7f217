"""How DuckDB's columns become the pandas columns that Great Expectations sees.

The pandas type follows from the DuckDB type and from what an expectation does with the column, never from the values:
pandas' own conversion turns an integer column into floats on the day it holds a NULL, and a verdict would then depend
on which other partitions were evaluated with it. NaN becomes NULL, and rows are in the order of their row id.

| use      | of                      | integers / HUGEINT, DECIMAL / FLOAT       | DATE / TIMESTAMP                |
|----------|-------------------------|-------------------------------------------|---------------------------------|
| `alone`  | one column              | Int64 (nullable) / float64 / float64      | date objects / datetime64[ns]   |
| `text`   | identity and text types | Int64 (nullable) / text / float64         | text / text                     |
| `beside` | pairs, several columns, | float64, 64 bits: Python ints / float64 / | datetime64[ns] / datetime64[ns] |
|          | row conditions          | float64                                   |                                 |

With `beside`, a missing value is NaN, which equals nothing; Great Expectations' pair types need that. TIMESTAMPTZ is
datetime64[us, UTC]. Instants out of pandas' range (before 1677, after 2262, infinity) become the nearest instant in
range, dates the nearest one in the years 1 to 9999. Other types are passed as Python objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster.quality.expectation_types import expectation_types
from pip_dagster.quality.suite import Expectation, condition_columns
from pip_dagster.sql.names import quote

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Use = Literal["alone", "text", "beside"]

# Types that compare a value's identity or its text, for which a decimal must not become a float.
TEXT_TYPES = frozenset(
    {
        "expect_column_values_to_be_unique",
        "expect_compound_columns_to_be_unique",
        "expect_column_unique_value_count_to_be_between",
        "expect_column_proportion_of_unique_values_to_be_between",
        "expect_column_values_to_match_regex",
        "expect_column_values_to_match_regex_list",
        "expect_column_values_to_not_match_regex",
        "expect_column_values_to_not_match_regex_list",
        "expect_column_value_lengths_to_be_between",
        "expect_column_value_lengths_to_equal",
        "expect_column_values_to_match_strftime_format",
        "expect_column_values_to_be_dateutil_parseable",
        "expect_column_values_to_be_json_parseable",
        "expect_column_values_to_match_json_schema",
    }
)

SMALL_INTS = frozenset({"TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER"})
BIG_INTS = frozenset({"BIGINT", "UBIGINT"})
FLOATS = frozenset({"FLOAT", "DOUBLE"})
TIMESTAMPS = frozenset({"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"})
ZONED = "TIMESTAMP WITH TIME ZONE"
TEXTS = frozenset({"VARCHAR", "UUID", "JSON", "BIT"})

_EARLIEST, _LATEST = "1677-09-22 00:00:00", "2262-04-11 00:00:00"


def is_text(sql_type: str) -> bool:
    """Whether a DuckDB type holds text; an ENUM counts as its text."""
    return sql_type in TEXTS or sql_type.startswith("ENUM(")


def is_wide(sql_type: str) -> bool:
    """Whether pandas has no native type for its numbers, which are therefore passed as doubles."""
    return sql_type in ("HUGEINT", "UHUGEINT") or sql_type.startswith("DECIMAL(")


def uses(expectation: Expectation) -> dict[str, Use]:
    """How an expectation uses each of its columns."""
    if expectation.type in TEXT_TYPES:
        use: Use = "text"
    else:
        use = "beside" if expectation_types()[expectation.type].kind in ("pair", "multicolumn") else "alone"
    found: dict[str, Use] = dict.fromkeys(condition_columns(expectation.row_condition), "beside")
    for column in expectation.judged_columns:
        found[column] = "alone" if use == "text" and column in found else use
    return found


def sql_value(name: str, sql_type: str, use: Use) -> str:
    """The SQL expression for a column's values in the form in which they are judged."""
    c = quote(name)
    if sql_type in FLOATS:
        return f"CASE WHEN isnan({c}) THEN NULL ELSE {c}::DOUBLE END"
    if is_wide(sql_type):
        return f"{c}::VARCHAR" if use == "text" else f"{c}::DOUBLE"
    if sql_type in SMALL_INTS | BIG_INTS | {"BOOLEAN"}:
        return c
    if is_text(sql_type):
        return f"{c}::VARCHAR"
    if sql_type == ZONED:
        if use == "text":
            return f"({c} AT TIME ZONE 'UTC')::VARCHAR"
        return _within(c, f"'{_EARLIEST}+00'::TIMESTAMPTZ", f"'{_LATEST}+00'::TIMESTAMPTZ")
    if use == "text":
        return f"{c}::VARCHAR"
    if sql_type == "DATE" and use == "alone":
        return _within(c, "'0001-01-01'::DATE", "'9999-12-31'::DATE")
    if sql_type == "DATE" or sql_type in TIMESTAMPS:
        return _within(f"{c}::TIMESTAMP", f"'{_EARLIEST}'::TIMESTAMP", f"'{_LATEST}'::TIMESTAMP")
    return c


def _within(value: str, low: str, high: str) -> str:
    # greatest() and least() skip NULLs
    return f"CASE WHEN {value} IS NOT NULL THEN greatest(least({value}, {high}), {low}) END"


def series(column: pa.ChunkedArray, sql_type: str, use: Use) -> pd.Series[Any]:
    """A column that `sql_value` selected, as the pandas column that is judged."""
    import pandas as pd
    import pyarrow as pa

    if sql_type in SMALL_INTS | BIG_INTS | {"BOOLEAN"}:
        if use == "beside" and sql_type in SMALL_INTS:
            return pd.Series(column.cast(pa.float64()).to_pandas(), dtype="float64")
        if use == "beside":
            return pd.Series([float("nan") if v is None else v for v in column.to_pylist()], dtype="object")
        dtype = {pa.bool_(): "boolean", pa.uint64(): "UInt64"}.get(column.type, "Int64")
        if dtype == "Int64":
            column = column.cast(pa.int64())
        mapper = {pa.bool_(): pd.BooleanDtype(), pa.uint64(): pd.UInt64Dtype(), pa.int64(): pd.Int64Dtype()}
        return column.to_pandas(types_mapper=mapper.get)
    if column.type == pa.string() or column.type == pa.large_string():
        return pd.Series(column.to_pandas(), dtype="str")
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", "UTC") if column.type.tz else pa.timestamp("ns"))
        return column.to_pandas()
    if column.type == pa.float64():
        return pd.Series(column.to_pandas(), dtype="float64")
    return pd.Series(column.to_pandas(), dtype="object")


@dataclass
class Columns:
    """Some rows of a relation, ready for frames: every (column, use) is fetched once, all in one query."""

    partitions: pd.Series[Any]
    row_ids: pa.ChunkedArray
    values: Mapping[tuple[str, Use], pd.Series[Any]]

    def frame(self, wanted: Mapping[str, Use]) -> pd.DataFrame:
        """A frame of the wanted columns, indexed by position; without columns it still has every row."""
        import pandas as pd

        columns = {name: self.values[name, use] for name, use in wanted.items()}
        return pd.DataFrame(columns, index=pd.RangeIndex(len(self.partitions)))
