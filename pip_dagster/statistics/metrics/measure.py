"""Metrics of the rows of a relation, group by group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pip_dagster.errors import DeclarationError
from pip_dagster.plural import plural
from pip_dagster.statistics.metrics.bins import EQUAL_BINS
from pip_dagster.statistics.metrics.concordance import concordance
from pip_dagster.statistics.metrics.curve import Curve, Tenths
from pip_dagster.statistics.metrics.figures import figures, metric_values
from pip_dagster.statistics.metrics.grouping import Grouping
from pip_dagster.statistics.metrics.spec import MetricSpec, MetricValue
from pip_dagster.statistics.metrics.sql import (
    cells_sql,
    curves,
    curves_sql,
    ranking_sql,
    sums_sql,
    survival_sql,
)
from pip_dagster.statistics.metrics.sums import BinCounts, MetricSums, ReliabilityBin, reliability_bins
from pip_dagster.warehouse.arrow import table_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

# Of a group: its grouping set, and the values of the columns that it is by.
_Key = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Measured:
    """One group of rows.

    Attributes:
        group: The columns that it is by, with its values.
        metrics: Figures by name, exact from the rows.
        sums: What adds up with the sums of other groups.
        tenths: Of all groups that were measured together, what `reliability` is of; and this one's place among them.
    """

    group: tuple[tuple[str, Any], ...]
    metrics: Mapping[str, MetricValue]
    sums: MetricSums
    tenths: Tenths | None
    place: int

    @cached_property
    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """Mean score and outcome in ten bins of equal counts by score; of binary and count models."""
        return reliability_bins(self.tenths, self.place) if self.tenths else ()


def measure(
    con: DuckDBPyConnection,
    relation: str,
    spec: MetricSpec,
    by: Sequence[str] = (),
    sets: Sequence[Sequence[str]] | None = None,
) -> list[Measured]:
    """Measure the labelled rows of a relation, in one pass for each kind of sums, whatever the number of groups.

    Args:
        con: a connection that can read the relation.
        relation: SQL after FROM: a table, or a subquery in parentheses, that gives the same rows each time. Rows
            without score or outcome are left out.
        spec: what is measured.
        by: columns that group the rows; without any, there is one group, also of no rows.
        sets: GROUPING SETS, each some of `by`; one of all of them when None.

    Returns:
        The groups, in the order of `sets` and of their values. A group of few rows, or of one class, has figures
        without a value and with a reason.

    Raises:
        DeclarationError: scores, outcomes or weights that the kind is not for.
    """
    grouping = Grouping(by, sets)
    table = table_of(con, sums_sql(relation, spec, grouping))
    _check(spec, table)
    keys = _keys(table, grouping)
    totals = {name: _numbers(table, name) for name in table.column_names if name not in ("pip_set", *grouping.names)}
    totals = {name: values for name, values in totals.items() if not name.startswith("bad_")}
    if not keys and not by:
        keys, totals = [("",)], {name: _zero() for name in totals}
    place = {key: i for i, key in enumerate(keys)}
    found = [_curve(_rows_of(each, place, grouping), len(keys)) for each in _curves(con, relation, spec, grouping)]
    totals |= _extra(con, relation, spec, grouping, place)
    of = figures(spec, totals, [curve for curve, _ in found])
    order = sorted(range(len(keys)), key=lambda i: _order(keys[i], grouping))
    tenths = found[0][0].tenths if found and spec.kind != "multiclass" else None
    layout, measured = spec.layout, []
    for i in order:
        sums = MetricSums(layout, {name: each[i] for name, each in totals.items()}, tuple(bins[i] for _, bins in found))
        measured.append(Measured(_group(keys[i], grouping), metric_values(of, totals, i), sums, tenths, i))
    return measured


def measure_arrays(spec: MetricSpec, columns: Mapping[str, np.ndarray]) -> Measured:
    """Measure the rows of columns in memory: all of them are one group. Raises as `measure`."""
    import duckdb
    import pyarrow as pa

    with duckdb.connect(config={"threads": 1}) as con:
        con.register("pip_rows", pa.table({name: pa.array(values) for name, values in columns.items()}))
        return measure(con, "pip_rows", spec)[0]


def _zero() -> np.ndarray:
    import numpy as np

    return np.zeros(1)


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column as DOUBLE; the sum of no rows is 0."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(table.column(name).cast(pa.float64()), 0.0))


def _check(spec: MetricSpec, table: pa.Table) -> None:
    """Refuse values that would give a wrong figure, or none for no reason."""
    import pyarrow.compute as pc

    scores = "finite numbers"
    if spec.kind == "multiclass" or (spec.kind == "binary" and spec.scale == "probability"):
        scores = "probabilities" + (" that add up to 1" if spec.kind == "multiclass" else "")
    if spec.kind == "count":
        scores = "finite numbers of 0 or more"
    outcomes = {
        "binary": "0 or 1",
        "multiclass": f"class codes 0 to {len(spec.classes) - 1}",
        "count": "0 or more",
        "ranking": "relevances from 0 to 31",
    }
    outcome = outcomes.get(spec.kind, "finite numbers")
    columns = {
        "score": (", ".join(spec.scores), f"scores must be {scores}"),
        "outcome": (spec.outcome, f"outcomes of a {spec.kind} model must be {outcome}"),
        "weight": (spec.weight, "weights must be finite numbers of 0 or more"),
        "query": (spec.query, "each row must have its query"),
    }
    for name, (column, expected) in columns.items():
        if f"bad_{name}" in table.column_names and (bad := pc.max(table.column(f"bad_{name}")).as_py()):
            what = "an outcome" if name == "outcome" else f"a {name} in {column}"
            remedy = " Map the others in the SQL of `labels`, or return NULL for them." if name == "outcome" else ""
            raise DeclarationError(f"{plural(bad, 'row')} with {what} that cannot be measured; {expected}.{remedy}")


def _keys(table: pa.Table, grouping: Grouping) -> list[_Key]:
    """The groups of a result. NaN is one value, so that groups of two results find each other."""
    columns = [table.column(name).to_pylist() for name in ("pip_set", *grouping.names)]
    columns = [["NaN" if isinstance(v, float) and math.isnan(v) else v for v in each] for each in columns]
    return list(zip(*columns, strict=True))


def _group(key: _Key, grouping: Grouping) -> tuple[tuple[str, Any], ...]:
    flags, *values = key
    return tuple((name, value) for name, value, flag in zip(grouping.by, values, flags, strict=True) if flag == "0")


def _order(key: _Key, grouping: Grouping) -> tuple[Any, ...]:
    flags, *values = key
    own = [i for i, flag in enumerate(flags) if flag == "0"]
    # NULL last; values of one column are of one type, but for NaN.
    ordered = [(values[i] is None, isinstance(values[i], str), values[i] if values[i] is not None else 0) for i in own]
    return (next(n for n, each in enumerate(grouping.sets) if sorted(each) == own), *ordered)


def _curves(con: DuckDBPyConnection, relation: str, spec: MetricSpec, grouping: Grouping) -> list[pa.Table]:
    """The result for each curve."""
    import pyarrow.compute as pc

    count = len(curves(spec))
    if not count:
        return []
    table = table_of(con, curves_sql(relation, spec, grouping))
    return [table.filter(pc.equal(table.column("k"), i)) for i in range(count)]


def _rows_of(table: pa.Table, place: Mapping[_Key, int], grouping: Grouping) -> tuple[np.ndarray, pa.Table]:
    import numpy as np

    return np.array([place[key] for key in _keys(table, grouping)], np.int64), table


def _curve(found: tuple[np.ndarray, pa.Table], groups: int) -> tuple[Curve, list[BinCounts]]:
    """The curve of each group, and its bins. `found`: which group each row of the result is, and the result."""
    import numpy as np

    at, table = found
    owner, parts = _flat(at, table, "bins")
    code, tenth = parts["code"].astype(np.int64), np.nan_to_num(parts["tenth"]).astype(np.int64)

    def by_tenth(name: str) -> np.ndarray:
        sums = np.bincount(owner * EQUAL_BINS + tenth, weights=parts[name], minlength=groups * EQUAL_BINS)
        return sums.reshape(groups, EQUAL_BINS)

    areas = [np.zeros(groups) for _ in range(3)]
    for area, name in zip(areas, ("area_below", "area_precision", "area_lorenz"), strict=True):
        area[at] = _numbers(table, name)
    curve = Curve.of_areas((areas[0], areas[1], areas[2]), Tenths(*(by_tenth(name) for name in ("c", "v", "x", "c2"))))
    order = np.lexsort((code, owner))
    owner, code = owner[order], code[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(owner) != 0) | (np.diff(code) != 0)]) if len(owner) else owner
    c, v = (np.add.reduceat(parts[name][order], starts) if len(starts) else np.zeros(0) for name in ("c", "v"))
    ends = np.searchsorted(owner[starts], np.arange(groups + 1))
    code = code[starts]
    return curve, [BinCounts(code[a:b], c[a:b], v[a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def _flat(at: np.ndarray, table: pa.Table, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A column of lists of structs as arrays, and which group each entry is of."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.column(name).combine_chunks()
    lengths = np.asarray(pc.list_value_length(column)).astype(np.int64)
    flat = column.flatten()
    fields = {flat.type.field(i).name: flat.field(i) for i in range(flat.type.num_fields)}
    return np.repeat(at, lengths), {
        key: np.asarray(each.cast(pa.float64()).fill_null(math.nan)) for key, each in fields.items()
    }


def _extra(
    con: DuckDBPyConnection, relation: str, spec: MetricSpec, grouping: Grouping, place: Mapping[_Key, int]
) -> dict[str, np.ndarray]:
    """The totals that are not sums over rows."""
    import numpy as np

    groups = max(len(place), 1)
    if spec.kind == "multiclass":
        table = table_of(con, cells_sql(relation, spec, grouping))
        owner, parts = _flat(_rows_of(table, place, grouping)[0], table, "cells")
        cells = np.zeros((groups, len(spec.classes) ** 2))
        cells[owner, parts["cell"].astype(np.int64)] = parts["c"]
        return {"cells": cells}
    if spec.kind == "ranking":
        table = table_of(con, ranking_sql(relation, spec, grouping))
        at, totals = _rows_of(table, place, grouping)[0], {}
        for name in ("queries", "empty", "ndcg", "map"):
            totals[name] = np.zeros(groups)
            totals[name][at] = _numbers(table, name)
        return totals
    if spec.kind == "survival":
        table = table_of(con, survival_sql(relation, spec, grouping))
        owner, parts = _flat(_rows_of(table, place, grouping)[0], table, "drawn")
        return concordance(owner, groups, parts, risk=spec.risk)
    return {}
