"""Judging in DuckDB, without importing Great Expectations, what is proven to come out as if it had judged."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pip_dagster.quality.chunk import Chunk, Numbered, Tally, grouped
from pip_dagster.quality.conditions import condition_sql, numeric, whole
from pip_dagster.quality.frame import BIG_INTS, FLOATS, SMALL_INTS, is_wide, quoted, uses
from pip_dagster.quality.mapped import mostly_judgement
from pip_dagster.quality.profile import METRICS, RAISED, is_missing, measured
from pip_dagster.quality.source import Source
from pip_dagster.quality.sql import QueryPlan, compiled, row_limits
from pip_dagster.quality.suite import Expectation
from pip_dagster.quality.verdict import Judgement, jsonable

if TYPE_CHECKING:
    import numpy as np

# Metrics that need no number, and are numbers of any column.
COUNTS = frozenset(
    {
        "expect_column_unique_value_count_to_be_between",
        "expect_column_proportion_of_unique_values_to_be_between",
        "expect_column_proportion_of_non_null_values_to_be_between",
    }
)


def judge_rows(source: Source, todo: Sequence[Numbered], partitions: Sequence[str], tally: Tally) -> list[Numbered]:
    """Judge row-level types and row counts in one query over the range; returns what is left."""
    plans = {i: (e, plan) for i, e in todo if (plan := compiled(i, e, source.types))}
    if not plans:
        return list(todo)
    counted = [
        f", count(*) FILTER (s{i}) AS n{i}, count(*) FILTER (s{i} AND j{i}) AS m{i}, count(*) FILTER (u{i}) AS u{i}"
        for i in plans
    ]
    result = source.con.execute(
        f"SELECT p{''.join(counted)} FROM ({_flags(source, plans)}) GROUP BY p", _parameters(plans, partitions)
    )
    names = [d[0] for d in result.description or ()]
    found = {row[0]: dict(zip(names, row, strict=True)) for row in result.fetchall()}
    for i, (e, _) in plans.items():
        for p in partitions:
            n, m, u = (found[p][f"{x}{i}"] if p in found else 0 for x in "nmu")
            tally.judgements[p, i] = mostly_judgement(e, u, n, m) if e.row_level else _row_count(e, n)
    broken = {i: plans[i] for i in plans if any(row[f"u{i}"] for row in found.values())}
    if broken:
        _find_broken(source, broken, partitions, tally)
    return [n for n in todo if n[0] not in plans]


def _flags(source: Source, plans: Mapping[int, tuple[Expectation, QueryPlan]]) -> str:
    """For every row: selected, judged and unexpected, for every plan."""
    p, r = quoted(source.partition_column), quoted(source.row_id)
    flags = []
    for i, (_, plan) in plans.items():
        unexpected = f"NOT {plan.expected}"
        if plan.unique:
            within = ", ".join([p, f"({plan.selected} AND {plan.judged})", *plan.unique])
            unexpected = f"count(*) OVER (PARTITION BY {within}) > 1"
        flags.append(
            f", {plan.selected} AS s{i}, {plan.judged} AS j{i}, "
            f"({plan.selected} AND {plan.judged} AND {unexpected}) AS u{i}"
        )
    return f"SELECT {p}::VARCHAR AS p, {r}::BIGINT AS r{''.join(flags)} FROM {source.asked}"


def _parameters(plans: Mapping[int, tuple[Expectation, QueryPlan]], partitions: Sequence[str]) -> dict[str, Any]:
    bound: dict[str, Any] = {"partitions": list(partitions)}
    for _, plan in plans.values():
        bound |= plan.parameters
    return bound


def _find_broken(
    source: Source, plans: Mapping[int, tuple[Expectation, QueryPlan]], partitions: Sequence[str], tally: Tally
) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    chosen = "".join(f", u{i}" for i in plans)
    table = source.con.execute(
        f"SELECT p, r{chosen} FROM ({_flags(source, plans)}) WHERE {' OR '.join(f'u{i}' for i in plans)}",
        _parameters(plans, partitions),
    ).to_arrow_table()
    codes = pc.index_in(table["p"], pa.array(partitions, pa.string())).to_numpy().astype("int64")
    ids = table["r"].to_numpy()
    for i in plans:
        rows = np.flatnonzero(table[f"u{i}"].to_numpy())
        tally.broken.append((i, codes[rows], ids[rows]))


def _row_count(e: Expectation, count: int) -> Judgement:
    limits = row_limits(e)
    assert limits is not None
    low, high, strict_low, strict_high = limits
    inside = (count > low if strict_low else count >= low) and (count < high if strict_high else count <= high)
    return Judgement("passed" if inside else "failed", observed=count)


def covers(e: Expectation, types: Mapping[str, str]) -> bool:
    """Whether :func:`judge_aggregates` judges an expectation."""
    if e.type not in METRICS or not e.judged_columns:
        return False
    sql_type = types[e.judged_columns[0]]
    number = sql_type in SMALL_INTS | BIG_INTS | FLOATS or is_wide(sql_type)
    low, high = e.kwargs.get("min_value"), e.kwargs.get("max_value")
    fits = whole if e.type == "expect_column_unique_value_count_to_be_between" else numeric
    known = condition_sql(e.row_condition, types, uses(e), lambda value, sql_type: "") is not None
    limits = [v for v in (low, high) if v is not None]
    return known and (number or e.type in COUNTS) and bool(limits) and all(map(fits, limits))


def judge_aggregates(source: Source, chunk: Chunk, todo: Sequence[Numbered], tally: Tally) -> list[Numbered]:
    """Judge aggregates that :func:`covers` by the pandas calls of Great Expectations; returns what is left."""
    left = []
    for shared, members in grouped(todo):
        frame = chunk.columns.frame(shared)
        for i, e in members:
            values = measured(chunk, frame, e, _selected(source, chunk, e))
            if any(value is RAISED for value in values):
                left.append((i, e))
                continue
            for partition, value in zip(chunk.partitions, values, strict=True):
                tally.judgements[partition, i] = _compared(e, value)
    return left


def _selected(source: Source, chunk: Chunk, e: Expectation) -> "np.ndarray[Any, Any] | None":
    """Whether each row of the chunk meets the row condition; None without one."""
    if e.row_condition is None:
        return None
    bound: dict[str, Any] = {"partitions": list(chunk.partitions)}

    def bind(value: Any, sql_type: str) -> str:
        name = f"c{len(bound)}"
        bound[name] = value
        return f"${name}::{sql_type}"

    selected = condition_sql(e.row_condition, source.types, uses(e), bind)
    p, r = quoted(source.partition_column), quoted(source.row_id)
    table = source.con.execute(
        f"SELECT {selected} AS s FROM {source.asked} ORDER BY {p}::VARCHAR, {r}::BIGINT", bound
    ).to_arrow_table()
    return table["s"].to_numpy()


def _compared(e: Expectation, value: Any) -> Judgement:
    """``_validate_metric_value_between`` of Great Expectations, for numbers."""
    if is_missing(value):
        return Judgement("failed")
    low, high = e.kwargs.get("min_value"), e.kwargs.get("max_value")
    read = int if e.type == "expect_column_unique_value_count_to_be_between" else float
    inside = True
    if low is not None:
        inside &= bool(value > read(low) if e.kwargs.get("strict_min") else value >= read(low))
    if high is not None:
        inside &= bool(value < read(high) if e.kwargs.get("strict_max") else value <= read(high))
    return Judgement("passed" if inside else "failed", observed=jsonable(value))
