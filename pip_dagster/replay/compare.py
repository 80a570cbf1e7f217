"""Stored scores against replayed ones, row by row, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pip_dagster.sql.names import WHOLE_NUMBERS, literal, quote
from pip_dagster.warehouse.connect import reading_beside

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

# The distance between a number and none; that between -inf and inf is a little less.
INCOMPARABLE = 2**32
_EXAMPLES = 5
# Types whose values Arrow and Python hold as DuckDB does; the others are shown as text.
_NATIVE = {"FLOAT", "DOUBLE", "BOOLEAN", "VARCHAR", *WHOLE_NUMBERS} - {"HUGEINT", "UHUGEINT"}
_BATCH_ROWS = 65_536


def ulps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many float32 numbers lie from each `a` to its `b`, as int64: 0 where they are the same number.

    A NaN is no distance from a NaN and `INCOMPARABLE` from a number. The two zeros are one number, though their bits
    differ. A float's bits, read as sign and magnitude, ascend as the floats do (Dawson, Comparing Floating Point
    Numbers, 2012 edition).
    """
    import numpy as np

    distance = np.abs(_ordered(a) - _ordered(b))
    a_nan, b_nan = np.isnan(a), np.isnan(b)
    distance[a_nan | b_nan] = INCOMPARABLE
    distance[a_nan & b_nan] = 0
    return distance


def _ordered(x: np.ndarray) -> np.ndarray:
    import numpy as np

    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.int32).astype(np.int64)
    return np.where(bits >= 0, bits, -(bits + 2**31))


@dataclass(frozen=True)
class ColumnDifference:
    """One column of the rows that are on both sides; without ULPs and absolute difference where it is not a FLOAT.

    `incomparable`: rows with a number on one side only; they are in `differing`, and in neither greatest difference.
    """

    differing: int = 0
    max_ulps: int | None = None
    max_absolute: float | None = None
    incomparable: int = 0

    def __add__(self, other: ColumnDifference) -> ColumnDifference:
        return ColumnDifference(
            self.differing + other.differing,
            _greater(self.max_ulps, other.max_ulps),
            _greater(self.max_absolute, other.max_absolute),
            self.incomparable + other.incomparable,
        )


def _greater(a: Any, b: Any) -> Any:
    return a if b is None else b if a is None else max(a, b)


@dataclass
class RowComparison:
    """Rows on both sides (`compared` = `equal` + `differing`), and rows on one side only.

    `missing`: replayed, but not stored. `extra`: stored, but not replayed. The keys of some are in `examples`, by kind.
    """

    compared: int = 0
    differing: int = 0
    missing: int = 0
    extra: int = 0
    columns: dict[str, ColumnDifference] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def equal(self) -> int:
        """Rows whose every column is the same to the bit."""
        return self.compared - self.differing

    @property
    def max_ulps(self) -> int | None:
        """The greatest distance in any FLOAT column; None where nothing could be compared."""
        return max((of.max_ulps for of in self.columns.values() if of.max_ulps is not None), default=None)

    @property
    def max_absolute(self) -> float | None:
        """The greatest absolute difference in any FLOAT column."""
        return max((of.max_absolute for of in self.columns.values() if of.max_absolute is not None), default=None)

    @property
    def same(self) -> bool:
        """Whether nothing differs, is missing or extra."""
        return not (self.differing or self.missing or self.extra)


def compare(
    con: DuckDBPyConnection, stored: str, replayed: str, key: Sequence[str], columns: dict[str, str]
) -> RowComparison:
    """Join two relations (SQL) on `key` and compare `columns` (name → SQL type), batch by batch.

    A key that occurs twice on one side has its second row counted as missing or extra.
    """
    on = " AND ".join(f"s.{quote(name)} IS NOT DISTINCT FROM r.{quote(name)}" for name in key)
    keys = ", ".join(
        f"coalesce(s.{quote(name)}::VARCHAR, r.{quote(name)}::VARCHAR) AS k{i}" for i, name in enumerate(key)
    )
    values = ", ".join(_pair(quote(name), sql_type, i) for i, (name, sql_type) in enumerate(columns.items()))
    query = (
        f"WITH s AS (SELECT *, {_nth(key)} AS pip_nth FROM {stored}), "
        f"r AS (SELECT *, {_nth(key)} AS pip_nth FROM {replayed}) "
        f"SELECT s.pip_nth IS NULL AS missing, r.pip_nth IS NULL AS extra, {keys}, {values} "
        f"FROM s FULL JOIN r ON s.pip_nth = r.pip_nth AND {on}"
    )
    total = RowComparison(columns={name: ColumnDifference() for name in columns})
    with reading_beside(con) as reading:
        for batch in reading.sql(query).to_arrow_reader(_BATCH_ROWS):
            _add(total, batch, list(key), columns)
    return total


def _pair(column: str, sql_type: str, i: int) -> str:
    """SQL of a stored and a replayed value, and whether they differ.

    Numbers are compared here, bit by bit. DuckDB compares the others: Arrow and numpy lack some of its types.
    """
    text = "" if sql_type in _NATIVE else "::VARCHAR"
    return f"s.{column}{text} AS s{i}, r.{column}{text} AS r{i}, s.{column} IS DISTINCT FROM r.{column} AS differs{i}"


def _nth(key: Sequence[str]) -> str:
    """SQL: which of the rows with its key a row is, in the order they were written."""
    return f"row_number() OVER (PARTITION BY {', '.join(map(quote, key))} ORDER BY rowid)"


def _add(total: RowComparison, batch: pa.RecordBatch, key: list[str], columns: dict[str, str]) -> None:
    import numpy as np

    missing, extra = (batch.column(i).to_numpy(zero_copy_only=False) for i in (0, 1))
    both = ~(missing | extra)
    differs = np.zeros(batch.num_rows, dtype=bool)
    for i, (name, sql_type) in enumerate(columns.items()):
        first = 2 + len(key) + 3 * i
        if sql_type in ("FLOAT", "DOUBLE"):
            unequal, found = _column(batch.column(first), batch.column(first + 1), both, sql_type)
        else:
            unequal = both & batch.column(first + 2).to_numpy(zero_copy_only=False)
            found = ColumnDifference(int(unequal.sum()))
        differs |= unequal
        total.columns[name] += found
    total.compared += int(both.sum())
    total.differing += int(differs.sum())
    total.missing += int(missing.sum())
    total.extra += int(extra.sum())
    for kind, rows in (("differing", differs), ("missing", missing), ("extra", extra)):
        listed = total.examples.setdefault(kind, [])
        listed += [_example(batch, int(row), key, columns) for row in np.flatnonzero(rows)[: _EXAMPLES - len(listed)]]


def _column(
    stored: pa.Array, replayed: pa.Array, both: np.ndarray, sql_type: str
) -> tuple[np.ndarray, ColumnDifference]:
    """Which rows differ in one column of FLOAT or DOUBLE, and by how much."""
    import numpy as np

    one_null = np.asarray(stored.is_null()) ^ np.asarray(replayed.is_null())
    a, b = stored.to_numpy(zero_copy_only=False), replayed.to_numpy(zero_copy_only=False)
    bits = np.int32 if sql_type == "FLOAT" else np.int64
    nan = np.isnan(a) & np.isnan(b)
    unequal = both & ((~nan & (a.view(bits) != b.view(bits))) | one_null)
    a, b = a[both], b[both]
    numbers = ~(np.isnan(a) | np.isnan(b))
    if sql_type != "FLOAT" or not numbers.any():
        return unequal, ColumnDifference(int(unequal.sum()), incomparable=int((unequal[both] & ~numbers).sum()))
    a, b = a[numbers], b[numbers]
    with np.errstate(invalid="ignore"):  # an infinity less itself
        absolute = np.where(a == b, 0.0, np.abs(a.astype(np.float64) - b.astype(np.float64)))
    return unequal, ColumnDifference(
        int(unequal.sum()), int(ulps(a, b).max()), float(absolute.max()), int((unequal[both] & ~numbers).sum())
    )


def _example(batch: pa.RecordBatch, row: int, key: list[str], columns: dict[str, str]) -> dict[str, Any]:
    shown: dict[str, Any] = {name: batch.column(2 + i)[row].as_py() for i, name in enumerate(key)}
    for i, name in enumerate(columns):
        first = 2 + len(key) + 3 * i
        shown[name] = {"stored": batch.column(first)[row].as_py(), "replayed": batch.column(first + 1)[row].as_py()}
    return shown


def of_partition(relation: str, column: str, value: str) -> str:
    """SQL of the rows of a table where `column` is `value`, with their rowids."""
    return f"(SELECT rowid, * FROM {relation} WHERE {quote(column)} = {literal(value)})"
