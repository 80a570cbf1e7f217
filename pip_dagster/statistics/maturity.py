"""From when a partition's figures count: once all of its labels can be there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median

# Labels are as complete as usual from this share of the usual coverage, as label gates have it.
USUAL = 0.8
# A coverage that changes by less than this no longer grows.
SETTLED = 0.005
# Without `complete_after`: of so many partitions' length no label may have come, and so many show what is usual.
_QUIET, _HISTORY = 3, 28


def usual_coverage(before: Sequence[float]) -> float | None:
    """The median share of labelled rows of the newest 28 of the evaluated partitions before; None without any."""
    return median(before[-_HISTORY:]) if before else None


def mature_at(
    bounds: tuple[datetime, datetime],
    now: datetime,
    coverage: float,
    *,
    complete_after: timedelta | None,
    before: float | None,
    usual: float | None,
) -> datetime:
    """The instant from which an evaluation counts, if no label comes after it.

    With `complete_after`, that is so long after the partition's end. Without: now, if coverage has changed by less than
    half a point since the evaluation `before`, can change by no more, or, at the first evaluation, is as high as usual
    and the partition is old enough; else, once no label has come for as long as three partitions.

    Args:
        bounds: the partition's.
        now: the time of the evaluation.
        coverage: the share of its rows that have a label.
        complete_after: as declared.
        before: the share at the evaluation before.
        usual: `usual_coverage` of the partitions before it.
    """
    start, end = bounds
    if complete_after is not None:
        return end + complete_after
    quiet = (end - start) * _QUIET
    settled = coverage >= 1 - SETTLED or (before is not None and abs(coverage - before) < SETTLED)
    as_usual = before is None and now >= end + quiet and (usual is None or coverage >= USUAL * usual)
    return now if settled or as_usual else now + quiet
