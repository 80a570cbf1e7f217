"""Row-level expectations: one validation over the whole range, its unexpected rows attributed to their partitions.

This is equal to one validation per partition for the types listed here. Their verdict on a row depends on that row;
for the uniqueness types the partition becomes part of what must be unique. `mostly` is applied per partition, as Great
Expectations applies it. The loop decides where the range cannot be evaluated, and for a partition with nothing to
evaluate: its column is empty and may have another type than in the range.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pip_dagster.quality.chunk import Chunk, Numbered, Tally, grouped, unused
from pip_dagster.quality.great import Judge
from pip_dagster.quality.loop import judge_alone
from pip_dagster.quality.suite import Expectation
from pip_dagster.quality.verdict import Judgement

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

UNIQUE = "expect_column_values_to_be_unique"
COMPOUND = "expect_compound_columns_to_be_unique"
NULLNESS = ("expect_column_values_to_not_be_null", "expect_column_values_to_be_null")

ROW_BY_ROW = frozenset(
    {
        *NULLNESS,
        UNIQUE,
        COMPOUND,
        "expect_column_values_to_be_between",
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_not_be_in_set",
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
        "expect_column_pair_values_a_to_be_greater_than_b",
        "expect_column_pair_values_to_be_equal",
        "expect_column_pair_values_to_be_in_set",
        "expect_multicolumn_sum_to_equal",
        "expect_multicolumn_values_to_be_equal",
        "expect_select_column_values_to_be_unique_within_record",
    }
)


def over_a_range(expectation: Expectation) -> bool:
    """Whether one validation of a range is equal to one validation per partition."""
    # Great Expectations ignores the row condition of the pair-in-set type, so counts of selected rows would not match.
    ignoring = expectation.type == "expect_column_pair_values_to_be_in_set" and expectation.row_condition is not None
    return expectation.type in ROW_BY_ROW and not ignoring


def judge_range(chunk: Chunk, judge: Judge, expectations: Sequence[Numbered], tally: Tally) -> list[Numbered]:
    """Judge every partition of a chunk; return the expectations whose range could not be evaluated."""

    left: list[Numbered] = []
    for shared, members in grouped(expectations):
        frame = chunk.columns.frame(shared)
        cache: dict[str, np.ndarray[Any, Any] | None] = {}
        selected = {i: selection(judge, frame, e, cache) for i, e in members}
        left.extend(m for m in members if selected[m[0]] is None)
        members = [m for m in members if selected[m[0]] is not None]
        ranged = [_over_range(chunk, frame, e) for _, e in members]
        for (i, e), outcome in zip(members, judge(frame, ranged) if members else [], strict=True):
            if outcome.error is not None or outcome.result.get("unexpected_index_list") is None:
                left.append((i, e))
                continue
            rows = selected[i]
            assert rows is not None
            _attribute(chunk, judge, frame, (i, e), rows, outcome.result["unexpected_index_list"], tally)
    return left


def selection(
    judge: Judge, frame: pd.DataFrame, expectation: Expectation, cache: dict[str, np.ndarray[Any, Any] | None]
) -> np.ndarray[Any, Any] | None:
    """Whether each row meets an expectation's row condition; None if that could not be evaluated.

    Great Expectations itself evaluates the condition: the expectation that an all-NULL column has no NULLs is broken by
    exactly the rows that the condition selects.
    """
    import numpy as np

    if expectation.row_condition is None:
        return np.ones(len(frame), dtype=bool)
    key = json.dumps(expectation.row_condition, sort_keys=True, default=repr)
    if key not in cache:
        nothing = unused("nothing", frame)
        probe = Expectation(nothing, "", NULLNESS[0], {"column": nothing}, row_condition=expectation.row_condition)
        outcome = judge(frame.assign(**{nothing: np.nan}), [probe])[0]
        rows = None
        if outcome.error is None:
            rows = np.zeros(len(frame), dtype=bool)
            rows[np.array(outcome.result["unexpected_index_list"], dtype="int64")] = True
        cache[key] = rows
    return cache[key]


def considered(frame: pd.DataFrame, expectation: Expectation) -> np.ndarray[Any, Any]:
    """Whether each row has a value to judge, by the expectation's rule for missing values."""
    import numpy as np

    if expectation.type in NULLNESS:
        return np.ones(len(frame), dtype=bool)
    missing = np.column_stack([frame[c].isna().to_numpy() for c in expectation.judged_columns])
    rule = expectation.kwargs.get("ignore_row_if", "all" if "column" not in expectation.kwargs else "any")
    if rule in ("never", "neither"):
        return np.ones(len(frame), dtype=bool)
    ignored: np.ndarray[Any, Any] = (np.any if rule.startswith(("any", "either")) else np.all)(missing, axis=1)
    return ~ignored


def _over_range(chunk: Chunk, frame: pd.DataFrame, expectation: Expectation) -> Expectation:
    """The expectation for the whole range; for uniqueness, adds the partition as a column to the frame."""
    import numpy as np

    kwargs = {k: v for k, v in expectation.kwargs.items() if k != "mostly"}
    if expectation.type not in (UNIQUE, COMPOUND):
        return dataclasses.replace(expectation, kwargs=kwargs)
    rows = considered(frame, expectation)
    # A row is ignored when all its columns are missing; then its partition must be missing too.
    within = unused("within", frame)
    frame[within] = np.where(rows, chunk.codes, np.nan)
    columns = [within, *expectation.judged_columns]
    rule = kwargs.get("ignore_row_if", "any_value_is_missing" if expectation.type == UNIQUE else None)
    kwargs = {"column_list": columns} | ({} if rule is None else {"ignore_row_if": rule})
    return dataclasses.replace(expectation, type=COMPOUND, kwargs=kwargs)


def _attribute(
    chunk: Chunk,
    judge: Judge,
    frame: pd.DataFrame,
    numbered: Numbered,
    rows: np.ndarray[Any, Any],
    unexpected: list[int],
    tally: Tally,
) -> None:
    import numpy as np

    i, expectation = numbered
    positions = np.array(unexpected, dtype="int64")
    if len(positions):
        tally.broken.append((i, chunk.codes[positions], chunk.row_ids[positions]))
    broken, elements = chunk.count(positions), chunk.count(rows)
    judged = chunk.count(rows & considered(frame, expectation))
    vacuous: Judgement | None = None
    for partition, u, n, m in zip(chunk.partitions, broken, elements, judged, strict=True):
        if m == 0:  # nothing to judge: the same for every such partition
            if vacuous is None:
                judge_alone(chunk, judge, {partition: [numbered]}, tally)
                vacuous = tally.judgements[partition, i]
            tally.judgements[partition, i] = (
                vacuous if vacuous.status == "errored" else dataclasses.replace(vacuous, element_count=n)
            )
            continue
        tally.judgements[partition, i] = mostly_judgement(expectation, u, n, m)


def mostly_judgement(expectation: Expectation, unexpected: int, elements: int, judged: int) -> Judgement:
    """Great Expectations' rule (`_mostly_success`): the share of expected rows among those judged, in floats."""
    mostly = expectation.kwargs.get("mostly", 1)
    passed = judged == 0 or (float(judged) - float(unexpected)) / float(judged) >= mostly
    percent = unexpected / judged * 100 if judged else None
    return Judgement("passed" if passed else "failed", unexpected, elements, percent)
