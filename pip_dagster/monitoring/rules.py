"""The rules of drift: which columns are in alarm at which positions of a series, and at what probability by chance.

A column is in alarm where it differs from each of its references by more than the declared amount, and its difference
from the partitions before is one that happens by chance with the declared probability at most, over all columns and
rules together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pip_dagster.monitoring.series import LONGEST
from pip_dagster.monitoring.windows import Windows
from pip_dagster.statistics.distribution import adjusted, stability
from pip_dagster.statistics.novelty import LEAST_HISTORY, novelty, two_of_three
from pip_dagster.statistics.usual import Usual, usual

if TYPE_CHECKING:
    import numpy as np

# missing, unseen: by the share of missing or of never-seen values alone. sudden: two of the newest three partitions.
# week: the newest seven together. The first that holds is named; missing and unseen hold in either window.
Rule = Literal["missing", "unseen", "sudden", "week"]
RULES: tuple[Rule, ...] = ("missing", "unseen", "sudden", "week")
WEEK = 7
_NEWEST = (0, 1, 2)


@dataclass(frozen=True, eq=False)
class DriftVerdict:
    """What the rules say; the fields have the shape (columns, positions).

    `rule`: the number in `RULES` of the rule that raised an alarm, -1 for none; `length`: the partitions of its window.
    `p`: the smallest adjusted p value, NaN where there are too few partitions before.
    """

    rule: np.ndarray
    length: np.ndarray
    p: np.ndarray


@dataclass(frozen=True, eq=False)
class _Cases:
    """Distributions that are judged alike: (cases, partitions, bins) counts and (cases, bins) counts of training.

    `needed`: (cases,) by how much they must differ. `rising`: it is the share of the first of two bins that must rise
    by so much; else it is the PSI beyond noise, of which a week needs half.
    """

    counts: np.ndarray
    training: np.ndarray
    needed: np.ndarray
    rising: bool


def judge(windows: Windows) -> DriftVerdict:
    """Judge all columns at all positions."""
    import numpy as np

    rules, columns = windows.rules, len(windows.series.columns)
    shape = (2, 3 * columns, len(windows.at))  # of columns whole, by their missing and by their never-seen values
    p, beyond = np.full(shape, np.nan), np.zeros(shape, bool)
    for group, width in windows.by_width:
        counts, training = windows.series.counts[group][..., :width], windows.series.reference[group][:, :width]
        cases = _Cases(counts, training, np.full(len(group), rules.psi), rising=False)
        p[:, group], beyond[:, group] = _judge(windows, cases)
    p[:, columns:] = np.where(np.isfinite(np.tile(p[:, :columns], (1, 2, 1))), 1.0, np.nan)
    shares, of = _shares(windows)
    if len(of):
        p[:, columns + of], beyond[:, columns + of] = _judge(windows, shares)
    p = adjusted(p.swapaxes(1, 2)).swapaxes(1, 2)
    raised = beyond & (p <= rules.false_alarms / 2)
    day, week = raised.reshape(2, 3, columns, -1)
    by_rule = np.stack([day[1] | week[1], day[2] | week[2], day[0], week[0]])
    rule = np.where(by_rule.any(axis=0), by_rule.argmax(axis=0), -1)
    by_day = np.take_along_axis(day[[1, 2, 0, 0]], np.maximum(rule, 0)[None], axis=0)[0]
    length = np.where((rule == RULES.index("week")) | ((rule >= 0) & ~by_day), WEEK, 1)
    smallest = np.fmin.reduce(p.reshape(-1, columns, p.shape[2]), axis=0)
    return DriftVerdict(rule, length, smallest)


def _shares(windows: Windows) -> tuple[_Cases, np.ndarray]:
    """The shares of missing and never-seen values, of the columns that have any; and which of both lists they are."""
    import numpy as np

    series = windows.series
    parts, references = windows.of_bins(series.counts), windows.of_bins(series.reference)
    rows, of = series.counts.sum(axis=2), series.reference.sum(axis=1)
    counts = np.concatenate([np.stack([part, rows - part], axis=2) for part in parts])
    training = np.concatenate([np.stack([part, of - part], axis=1) for part in references])
    needed = np.repeat([windows.rules.missing, windows.rules.unseen], len(rows))
    some = np.flatnonzero(counts[:, :, 0].any(axis=1))
    return _Cases(counts[some], training[some], needed[some], rising=True), some


def _judge(windows: Windows, cases: _Cases) -> tuple[np.ndarray, np.ndarray]:
    """For the newest days and for the week, (2, cases, positions): p, NaN where not judged; if it differs enough."""
    import numpy as np

    at, phases = windows.at, windows.series.phases
    firsts = np.unique(np.maximum(np.concatenate([at - _NEWEST[-1], at - WEEK + 1]), 0))
    of = usual(cases.counts, firsts, windows.rules.history, phases)
    day, week = (of.at(np.searchsorted(firsts, np.maximum(at - back, 0))) for back in (_NEWEST[-1], WEEK - 1))
    found = [_compared(windows, cases, day, 1, back) for back in _NEWEST]
    ps, beyond = (np.stack(each) for each in zip(*found, strict=True))
    p = two_of_three(ps, day.likeness)
    p_week, beyond_week = _compared(windows, cases, week, WEEK, 0)
    early = [at - back < LEAST_HISTORY for back in (_NEWEST[-1], WEEK - 1)]
    p, p_week = (np.where(too_early, np.nan, each) for too_early, each in zip(early, (p, p_week), strict=True))
    return np.stack([p, p_week]), np.stack([beyond.sum(axis=0) >= 2, beyond_week])


def _compared(windows: Windows, cases: _Cases, before: Usual, length: int, back: int) -> tuple[np.ndarray, np.ndarray]:
    """p, and whether it differs enough from all references, of the windows that end `back` partitions earlier."""
    import numpy as np

    at = windows.at
    end = np.maximum(at - back, 0)
    window = _sum(cases.counts, end, length)
    history = before.reference(windows.phases(length, back))
    p = novelty(window, before, history, length)
    beyond = _beyond(cases, window, history, length)
    if "training" in windows.rules.references:
        training = np.broadcast_to(cases.training[:, None], window.shape).astype(np.float64)
        beyond &= _beyond(cases, window, training, length) | ~training.any(axis=2)
    season = windows.series.season
    if season is not None and not cases.rising:
        place, newest = season[end], season[at]
        then = _sum(cases.counts, np.maximum(place, 0), length)
        # Behind gaps, only as far as a judgement is bound to: whatever else is judged with it.
        reached = (place + 1 >= length) & (place <= newest) & (newest < place + LONGEST)
        there = reached & then.any(axis=2)
        beyond &= _beyond(cases, window, then, length) | ~there
    return p, beyond


def _beyond(cases: _Cases, window: np.ndarray, reference: np.ndarray, length: int) -> np.ndarray:
    import numpy as np

    if cases.rising:
        with np.errstate(divide="ignore", invalid="ignore"):
            now, then = (each[..., 0] / each.sum(axis=2) for each in (window, reference))
        return now - then > cases.needed[:, None]  # NaN, where there are no rows, is not
    psi, noise, _ = stability(window.astype(np.float64), reference.astype(np.float64))
    return psi - noise > cases.needed[:, None] / (1 if length == 1 else 2)


def _sum(counts: np.ndarray, end: np.ndarray, length: int) -> np.ndarray:
    """Of the `length` partitions up to each position in `end`, fewer at the beginning."""
    import numpy as np

    cumulative = np.concatenate([np.zeros_like(counts[:, :1]), counts.cumsum(axis=1)], axis=1)
    return cumulative[:, end + 1] - cumulative[:, np.maximum(end + 1 - length, 0)]
