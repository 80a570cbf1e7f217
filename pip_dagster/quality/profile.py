"""Aggregate expectations: a profile with a row per partition, judged in one validation.

The profile's values come from the same pandas calls that Great Expectations makes on one partition (a sum in another
order ends in other digits). Great Expectations judges them with `expect_column_values_to_be_between`, which compares as
its aggregate types do. A partition without a value fails. The loop judges whatever raises on the way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pip_dagster.quality.chunk import Chunk, Numbered, Tally, grouped
from pip_dagster.quality.great import Judge, build
from pip_dagster.quality.mapped import selection
from pip_dagster.quality.suite import Expectation
from pip_dagster.quality.verdict import Judgement, jsonable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ROW_COUNT = "expect_table_row_count_to_be_between"
ROW_COUNT_EQUAL = "expect_table_row_count_to_equal"


def _median(values: Any) -> Any:
    return values[values.notnull()].median()


def _unique_share(values: Any) -> Any:
    present = len(values) - int(values.isnull().sum())
    return values.nunique() / present if present else 0


def _present_share(values: Any) -> Any:
    return values.notnull().sum() / len(values) if len(values) else 0


METRICS: Mapping[str, Callable[[Any], Any]] = {
    "expect_column_mean_to_be_between": lambda values: values.mean(),
    "expect_column_sum_to_be_between": lambda values: values.sum(),
    "expect_column_min_to_be_between": lambda values: values.min(),
    "expect_column_max_to_be_between": lambda values: values.max(),
    "expect_column_median_to_be_between": _median,
    "expect_column_stdev_to_be_between": lambda values: values.std(),
    "expect_column_unique_value_count_to_be_between": lambda values: values.nunique(),
    "expect_column_proportion_of_unique_values_to_be_between": _unique_share,
    "expect_column_proportion_of_non_null_values_to_be_between": _present_share,
    ROW_COUNT: len,
    ROW_COUNT_EQUAL: len,
}

RAISED = object()
"""The value of a metric that could not be computed."""


def judge_profile(
    chunk: Chunk, judge: Judge, expectations: Sequence[Numbered], tally: Tally
) -> dict[str, list[Numbered]]:
    """Judge every partition of a chunk; return, by partition, the expectations that the loop must judge."""
    import pandas as pd

    left: dict[str, list[Numbered]] = {}
    profile: dict[str, list[Any]] = {}
    limited: dict[str, tuple[Numbered, Expectation]] = {}
    for shared, members in grouped(expectations):
        frame = chunk.columns.frame(shared)
        cache: dict[str, np.ndarray[Any, Any] | None] = {}
        for i, e in members:
            limits = _limits(e)
            rows = selection(judge, frame, e, cache)
            if limits is None or rows is None:
                _add(left, chunk.partitions, (i, e))
                continue
            name = f"metric_{i}"
            profile[name] = measured(chunk, frame, e, rows if e.row_condition else None)
            between = dataclasses.replace(
                e, type="expect_column_values_to_be_between", kwargs={"column": name, **limits}, row_condition=None
            )
            limited[name] = (i, e), between
    outcomes = judge(_table(profile), [between for _, between in limited.values()]) if limited else []
    for (name, (numbered, _)), outcome in zip(limited.items(), outcomes, strict=True):
        if outcome.error is not None or outcome.result.get("unexpected_index_list") is None:
            _add(left, chunk.partitions, numbered)
            continue
        outside = set(outcome.result["unexpected_index_list"])
        for position, (partition, value) in enumerate(zip(chunk.partitions, profile[name], strict=True)):
            if value is RAISED or value is pd.NaT:  # GE compares NaT with the limits, which may raise
                _add(left, [partition], numbered)
                continue
            failed = position in outside or is_missing(value)
            tally.judgements[partition, numbered[0]] = Judgement(
                "failed" if failed else "passed", observed=_observed(value)
            )
    return left


def measured(
    chunk: Chunk, frame: pd.DataFrame, expectation: Expectation, rows: np.ndarray[Any, Any] | None
) -> list[Any]:
    """An aggregate expectation's metric for every partition of a chunk, over the selected rows."""
    import numpy as np

    metric = METRICS[expectation.type]
    column = frame[expectation.judged_columns[0]] if expectation.judged_columns else None
    found: list[Any] = []
    for part in chunk.slices.values():
        if column is None:
            found.append(part.stop - part.start if rows is None else int(np.count_nonzero(rows[part])))
            continue
        values = column.iloc[part]
        try:
            found.append(metric(values if rows is None else values[rows[part]]))
        except Exception:
            found.append(RAISED)  # the loop reports its message
    return found


def _limits(expectation: Expectation) -> dict[str, Any] | None:
    """The limits as Great Expectations reads them (it rounds some to whole numbers); None if it refuses them."""
    try:
        built = build(expectation)
    except Exception:
        return None
    if expectation.type == ROW_COUNT_EQUAL:
        return {"min_value": built.value, "max_value": built.value}
    names = ("min_value", "max_value", "strict_min", "strict_max")
    return {k: getattr(built, k) for k in names if getattr(built, k) is not None}


def _table(profile: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """The profile as a frame of objects, so that each value is compared as the scalar it is, or of instants."""
    import pandas as pd

    columns = {}
    for name, values in profile.items():
        kept = [None if v is RAISED or is_missing(v) else v for v in values]
        instants = all(isinstance(v, pd.Timestamp) for v in kept if v is not None) and any(v is not None for v in kept)
        columns[name] = pd.Series(kept) if instants else pd.Series(kept, dtype=object)
    return pd.DataFrame(columns)


def is_missing(value: Any) -> bool:
    """Whether a metric has no value: NaN, NaT or NA."""
    import pandas as pd

    return value is not RAISED and pd.api.types.is_scalar(value) and bool(pd.isna(value))


def _observed(value: Any) -> Any:
    return None if is_missing(value) else jsonable(value)


def _add(left: dict[str, list[Numbered]], partitions: Sequence[str], numbered: Numbered) -> None:
    for partition in partitions:
        left.setdefault(partition, []).append(numbered)
