"""Whether a partition's share of rows, or its throughput, is far from that of the partitions before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

LEAST_HISTORY = 14
# A share is far above where it is so many times the largest before, and so many standard errors beyond that.
_TIMES, _ERRORS = 2.5, 4.0
_LEAST_EXCESS = 0.005
_PRIOR = 3  # rows: what a history without any may hide
_SLOW = 0.5
_MORE_TIME = 1.5
_LEAST_SECONDS = 1.0


def far_above(count: int, rows: int, history: Sequence[tuple[int, int]]) -> tuple[float, bool] | None:
    """The largest share that is usual, and whether this one is far above; None where too few show what is usual.

    `history` has the count and the rows of each partition before, those without rows included.
    """
    before = [(of, total) for of, total in history if total > 0]
    if rows <= 0 or len(before) < LEAST_HISTORY:
        return None
    pooled = (sum(of for of, _ in before) + _PRIOR) / (sum(total for _, total in before) + _PRIOR)
    usual = min(1.0, max(_TIMES * max(of / total for of, total in before), pooled))
    limit = usual + _ERRORS * math.sqrt(usual * (1 - usual) / rows)
    typical = median(of / total for of, total in before)
    share = count / rows
    return limit, share > limit and share - typical >= _LEAST_EXCESS


def slowed_down(newest: Sequence[tuple[int, float]], history: Sequence[tuple[int, float]]) -> tuple[float, bool] | None:
    """The median rows per CPU second before, and whether the newest two are both below half of it.

    Pairs of rows and CPU seconds. A partition with few rows has few a second because of what every partition costs, so
    that both must have taken more time than usual too.
    """
    before = [(rows, seconds) for rows, seconds in history if rows > 0 and seconds > 0]
    if len(newest) < 2 or len(before) < LEAST_HISTORY or any(rows <= 0 or seconds <= 0 for rows, seconds in newest):
        return None
    rate, time = median(rows / seconds for rows, seconds in before), median(seconds for _, seconds in before)
    least = max(_LEAST_SECONDS, _MORE_TIME * time)
    slow = all(rows / seconds < _SLOW * rate and seconds > least for rows, seconds in newest)
    return rate, slow
