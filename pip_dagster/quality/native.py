"""Judging in DuckDB, without Great Expectations, where property tests show that the verdicts are the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pip_dagster.quality.conditions import condition_sql, numeric, whole
from pip_dagster.quality.frame import BIG_INTS, FLOATS, SMALL_INTS, is_wide, uses
from pip_dagster.quality.relation import Chunk, Numbered, Relation, Tally, grouped
from pip_dagster.quality.sql import SqlCheck, compiled, row_limits
from pip_dagster.quality.suite import COUNTS, Expectation
from pip_dagster.quality.verdict import Judgement, jsonable
from pip_dagster.sql.names import quote

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def _median(values: pd.Series[Any]) -> Any:
    return values[values.notnull()].median()


def _unique_share(values: pd.Series[Any]) -> Any:
    present = len(values) - int(values.isnull().sum())
    return values.nunique() / present if present else 0


def _present_share(values: pd.Series[Any]) -> Any:
    return values.notnull().sum() / len(values) if len(values) else 0


# The pandas calls that Great Expectations makes on one partition: a sum in another order ends in other digits.
METRICS: Mapping[str, Callable[[pd.Series[Any]], Any]] = {
    "expect_column_mean_to_be_between": lambda values: values.mean(),
    "expect_column_sum_to_be_between": lambda values: values.sum(),
    "expect_column_min_to_be_between": lambda values: values.min(),
    "expect_column_max_to_be_between": lambda values: values.max(),
    "expect_column_median_to_be_between": _median,
    "expect_column_stdev_to_be_between": lambda values: values.std(),
    "expect_column_unique_value_count_to_be_between": lambda values: values.nunique(),
    "expect_column_proportion_of_unique_values_to_be_between": _unique_share,
    "expect_column_proportion_of_non_null_values_to_be_between": _present_share,
}

# Expectations in one query: each is three flags of a row and three counts of a partition, which a thread holds at once.
_AT_ONCE = 64


def judge_rows(relation: Relation, todo: Sequence[Numbered], partitions: Sequence[str], tally: Tally) -> list[Numbered]:
    """Judge row-level types and row counts in queries over the range; return the other expectations."""
    checks = {i: (e, check) for i, e in todo if (check := compiled(i, e, relation.types))}
    numbers = list(checks)
    for at in range(0, len(numbers), _AT_ONCE):
        _judge_rows(relation, {i: checks[i] for i in numbers[at : at + _AT_ONCE]}, partitions, tally)
    return [n for n in todo if n[0] not in checks]


def _judge_rows(
    relation: Relation, checks: Mapping[int, tuple[Expectation, SqlCheck]], partitions: Sequence[str], tally: Tally
) -> None:
    counted = [
        f", count(*) FILTER (s{i}) AS n{i}, count(*) FILTER (s{i} AND j{i}) AS m{i}, count(*) FILTER (u{i}) AS u{i}"
        for i in checks
    ]
    result = relation.con.execute(
        f"SELECT p{''.join(counted)} FROM ({_flags(relation, checks)}) GROUP BY p", _parameters(checks, partitions)
    )
    names = [d[0] for d in result.description or ()]
    found = {row[0]: dict(zip(names, row, strict=True)) for row in result.fetchall()}
    for i, (e, _) in checks.items():
        for p in partitions:
            n, m, u = (found[p][f"{x}{i}"] if p in found else 0 for x in "nmu")
            tally.judgements[p, i] = _mostly(e, u, n, m) if e.row_level else _row_count(e, n)
    broken = {i: checks[i] for i in checks if any(row[f"u{i}"] for row in found.values())}
    if broken:
        _find_broken(relation, broken, partitions, tally)


def _flags(relation: Relation, checks: Mapping[int, tuple[Expectation, SqlCheck]]) -> str:
    """For every row and check: whether the row is selected, judged and unexpected."""
    p, r = quote(relation.partition_column), quote(relation.row_id)
    flags = []
    for i, (_, check) in checks.items():
        unexpected = f"NOT {check.expected}"
        if check.unique:
            within = ", ".join([p, f"({check.selected} AND {check.judged})", *check.unique])
            unexpected = f"count(*) OVER (PARTITION BY {within}) > 1"
        flags.append(
            f", {check.selected} AS s{i}, {check.judged} AS j{i}, "
            f"({check.selected} AND {check.judged} AND {unexpected}) AS u{i}"
        )
    return f"SELECT {p}::VARCHAR AS p, {r}::BIGINT AS r{''.join(flags)} FROM {relation.selected}"


def _parameters(checks: Mapping[int, tuple[Expectation, SqlCheck]], partitions: Sequence[str]) -> dict[str, Any]:
    bound: dict[str, Any] = {"partitions": list(partitions)}
    for _, check in checks.values():
        bound |= check.parameters
    return bound


def _find_broken(
    relation: Relation, checks: Mapping[int, tuple[Expectation, SqlCheck]], partitions: Sequence[str], tally: Tally
) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    chosen = "".join(f", u{i}" for i in checks)
    table = relation.con.execute(
        f"SELECT p, r{chosen} FROM ({_flags(relation, checks)}) WHERE {' OR '.join(f'u{i}' for i in checks)}",
        _parameters(checks, partitions),
    ).to_arrow_table()
    codes = pc.index_in(table["p"], pa.array(partitions, pa.string())).to_numpy().astype("int64")
    ids = table["r"].to_numpy()
    for i in checks:
        rows = np.flatnonzero(table[f"u{i}"].to_numpy())
        tally.broken.append((i, codes[rows], ids[rows]))


def _mostly(expectation: Expectation, unexpected: int, elements: int, judged: int) -> Judgement:
    """Great Expectations' rule (`_mostly_success`): the share of expected rows among those judged, in floats."""
    mostly = expectation.kwargs.get("mostly", 1)
    passed = judged == 0 or (float(judged) - float(unexpected)) / float(judged) >= mostly
    percent = unexpected / judged * 100 if judged else None
    return Judgement("passed" if passed else "failed", unexpected, elements, percent)


def _row_count(e: Expectation, count: int) -> Judgement:
    limits = row_limits(e)
    assert limits is not None
    low, high, strict_low, strict_high = limits
    inside = (count > low if strict_low else count >= low) and (count < high if strict_high else count <= high)
    return Judgement("passed" if inside else "failed", observed=count)


def covers(e: Expectation, types: Mapping[str, str]) -> bool:
    """Whether `judge_aggregates` judges an expectation."""
    if e.type not in METRICS:
        return False
    sql_type = types[e.judged_columns[0]]
    number = sql_type in SMALL_INTS | BIG_INTS | FLOATS or is_wide(sql_type)
    low, high = e.kwargs.get("min_value"), e.kwargs.get("max_value")
    fits = whole if e.type == "expect_column_unique_value_count_to_be_between" else numeric
    known = condition_sql(e.row_condition, types, uses(e), lambda value, sql_type: "") is not None
    limits = [v for v in (low, high) if v is not None]
    return known and (number or e.type in COUNTS) and bool(limits) and all(map(fits, limits))


def judge_aggregates(relation: Relation, chunk: Chunk, todo: Sequence[Numbered], tally: Tally) -> list[Numbered]:
    """Judge aggregates that `covers` accepts, with Great Expectations' own pandas calls; return those it cannot."""
    left = []
    for shared, members in grouped(todo):
        frame = chunk.columns.frame(shared)
        for i, e in members:
            selected = _selected(relation, chunk, e)
            try:
                values = {
                    partition: METRICS[e.type](frame[e.judged_columns[0]].iloc[rows][selected[rows]])
                    for partition, rows in chunk.slices.items()
                }
            except Exception:  # Great Expectations has the message
                left.append((i, e))
                continue
            tally.judgements |= {(partition, i): _compared(e, value) for partition, value in values.items()}
    return left


def _selected(relation: Relation, chunk: Chunk, e: Expectation) -> np.ndarray[Any, Any]:
    """Whether each row of the chunk meets the row condition."""
    import numpy as np

    if e.row_condition is None:
        return np.ones(len(chunk.row_ids), dtype=bool)
    bound: dict[str, Any] = {"partitions": list(chunk.partitions)}

    def bind(value: Any, sql_type: str) -> str:
        name = f"c{len(bound)}"
        bound[name] = value
        return f"${name}::{sql_type}"

    selected = condition_sql(e.row_condition, relation.types, uses(e), bind)
    p, r = quote(relation.partition_column), quote(relation.row_id)
    table = relation.con.execute(
        f"SELECT {selected} AS s FROM {relation.selected} ORDER BY {p}::VARCHAR, {r}::BIGINT", bound
    ).to_arrow_table()
    return table["s"].to_numpy()


def _compared(e: Expectation, value: Any) -> Judgement:
    """The comparison of Great Expectations' `_validate_metric_value_between`, for numbers."""
    import pandas as pd

    if pd.isna(value):
        return Judgement("failed")
    low, high = e.kwargs.get("min_value"), e.kwargs.get("max_value")
    read = int if e.type == "expect_column_unique_value_count_to_be_between" else float
    inside = True
    if low is not None:
        inside &= bool(value > read(low) if e.kwargs.get("strict_min") else value >= read(low))
    if high is not None:
        inside &= bool(value < read(high) if e.kwargs.get("strict_max") else value <= read(high))
    return Judgement("passed" if inside else "failed", observed=jsonable(value))
