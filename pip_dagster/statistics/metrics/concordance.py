"""Harrell's C (1982): of the pairs of rows whose order is known, the share that the scores order alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 500


def concordance(owner: np.ndarray, groups: int, rows: Mapping[str, np.ndarray], *, risk: bool) -> dict[str, np.ndarray]:
    """Count pairs within each group.

    The order of a pair is known if the row with the shorter time is not censored; of equal times, if one is censored
    and the other is not. Tied scores count half.

    Args:
        owner: (rows,) the group of each row.
        groups: how many there are.
        rows: `score`, `time` and `censored`, each (rows,).
        risk: whether a high score means a short time.

    Returns:
        `pairs` and `concordant`, each (groups,), and `drawn`, how many rows were compared.
    """
    import numpy as np

    order = np.argsort(owner, kind="stable")
    ends = np.searchsorted(owner[order], np.arange(groups + 1))
    pairs, right = np.zeros(groups), np.zeros(groups)
    for group, (start, end) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
        of = order[start:end]
        score, time, censored = (rows[name][of] for name in ("score", "time", "censored"))
        score, censored = -score if risk else score, censored > 0
        events = np.flatnonzero(~censored)
        for first in range(0, len(events), _BLOCK):
            i = events[first : first + _BLOCK, None]
            known = (time > time[i]) | ((time == time[i]) & censored)
            pairs[group] += known.sum()
            right[group] += (known & (score > score[i])).sum() + 0.5 * (known & (score == score[i])).sum()
    return {"pairs": pairs, "concordant": right, "drawn": np.diff(ends).astype(np.float64)}
