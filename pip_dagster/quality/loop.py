"""One validation per partition: slow, and correct for every type. It judges what no faster path covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pip_dagster.quality.chunk import Chunk, Numbered, Tally, grouped
from pip_dagster.quality.great import Judge, Outcome
from pip_dagster.quality.verdict import Judgement, jsonable


def judge_alone(chunk: Chunk, judge: Judge, wanted: Mapping[str, Sequence[Numbered]], tally: Tally) -> None:
    """Judge partitions one by one, each by its own list of expectations."""
    import numpy as np

    for partition, expectations in wanted.items():
        rows = chunk.slices[partition]
        code = chunk.partitions.index(partition)
        for shared, members in grouped(expectations):
            frame = chunk.columns.frame(shared).iloc[rows]
            for (i, expectation), outcome in zip(members, judge(frame, [e for _, e in members]), strict=True):
                tally.judgements[partition, i] = judgement(outcome)
                unexpected = outcome.result.get("unexpected_index_list") if expectation.row_level else None
                if unexpected and outcome.error is None:
                    positions = np.array(unexpected, dtype="int64")
                    tally.broken.append((i, np.full(len(positions), code), chunk.row_ids[positions]))


def judgement(outcome: Outcome) -> Judgement:
    """The judgement of Great Expectations on one partition."""
    if outcome.error is not None:
        return Judgement("errored", error=outcome.error)
    result: dict[str, Any] = outcome.result
    return Judgement(
        status="passed" if outcome.success else "failed",
        unexpected_count=result.get("unexpected_count"),
        element_count=result.get("element_count"),
        unexpected_percent=result.get("unexpected_percent"),
        observed=jsonable(result.get("observed_value")),
    )
