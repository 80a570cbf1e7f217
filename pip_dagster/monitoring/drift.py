"""Drift: windows of 1, 7 and 28 partitions against training, and whether they are unlike the partitions before them.

A column is in alarm where it differs from both by more than the declared PSI, and its difference from the partitions
before is one that happens by chance with the declared probability at most, over all columns and rules together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.monitoring.series import Column, Series
from pip_dagster.statistics.distribution import Difference, adjusted, difference
from pip_dagster.statistics.novelty import LEAST_HISTORY, novelty, two_of_three

if TYPE_CHECKING:
    import numpy as np

WINDOWS = (1, 7, 28)
# Which rule raised an alarm: two of the newest three partitions, or the newest seven together.
Rule = Literal["sudden", "week"]
# drifted: unlike training for 28 partitions, and no longer news. noted: in alarm, but the model does not use it.
State = Literal["alarm", "noted", "drifted", "ok", "unjudged"]

_WEEK = 7
_RULES = 2


@dataclass(frozen=True)
class WindowDrift:
    """A window against training: its rows, PSI, PSI beyond noise, Jensen-Shannon distance (base 2), chi-squared p."""

    partitions: int
    rows: int
    psi: float
    excess: float
    distance: float
    p: float


@dataclass(frozen=True)
class ColumnDrift:
    """One column at one partition.

    `windows` are against training; none for a decision. `p` is the smaller adjusted one of the two rules, None where
    there are too few partitions before it. `bin` is where the share changed most from the partitions before:
    `share_before`, `share_now`, over the window of the rule, of one partition where there is none.
    """

    kind: str
    name: str
    gain: float | None
    state: State
    rule: Rule | None
    p: float | None
    windows: tuple[WindowDrift, ...]
    bin: str
    share_before: float
    share_now: float
    mean: float | None
    training_mean: float | None

    @property
    def changed(self) -> str:
        """The largest change, in words."""
        return f"{self.bin}: {self.share_before:.1%} to {self.share_now:.1%}" if self.bin else ""


@dataclass(frozen=True)
class PartitionDrift:
    """All columns at one partition, the worst first. `history`: how many partitions before it show what is usual."""

    partition_key: str
    rows: int
    history: int
    columns: tuple[ColumnDrift, ...]

    @property
    def alarms(self) -> tuple[ColumnDrift, ...]:
        """The columns in alarm."""
        return tuple(each for each in self.columns if each.state == "alarm")


def drift_at(series: Series, at: int, declared: Monitoring) -> PartitionDrift:
    """Judge the partition at position `at` of a series, and the windows that end with it."""
    import numpy as np

    training = {
        length: difference(_window(series, at, length), series.reference)
        for length in WINDOWS
        if at + 1 >= length or length == 1
    }
    sudden = _sudden(series, at, declared)
    week = _week(series, at, declared)
    level = declared.false_alarms / _RULES
    has_reference = series.reference.sum(axis=1) > 0
    rules: list[tuple[Rule, int, _Judged]] = [("sudden", 1, sudden), ("week", _WEEK, week)]
    found = []
    for i, column in enumerate(series.columns):
        raised = next(((rule, length) for rule, length, each in rules if each.beyond[i] and each.p[i] <= level), None)
        p = np.nanmin([sudden.p[i], week.p[i]]) if np.isfinite([sudden.p[i], week.p[i]]).any() else None
        lasting = training.get(max(WINDOWS))
        drifted = lasting is not None and has_reference[i] and lasting.excess[i] > declared.psi / 2
        state = _state(column, raised is not None, drifted, p is not None)
        verdict = (state, raised[0] if raised else None, None if p is None else float(p))
        of = _changed(series, at, raised[1] if raised else 1, declared)
        found.append(_column_drift(series, at, i, verdict, training, of))
    order: list[State] = ["alarm", "noted", "drifted", "ok", "unjudged"]
    # Scores and decisions are what people act on; among features, what the model uses most.
    found.sort(key=lambda each: (order.index(each.state), each.kind == "feature", -(each.gain or 0.0), each.name))
    rows = int(training[1].rows.max(initial=0))
    return PartitionDrift(series.partitions[at], rows, min(at, declared.history), tuple(found))


@dataclass(frozen=True, eq=False)
class _Judged:
    """A rule at one partition: adjusted p values (columns,), NaN where not judged, and whether it differs enough."""

    p: np.ndarray
    beyond: np.ndarray


def _sudden(series: Series, at: int, declared: Monitoring) -> _Judged:
    """Two of the newest three partitions, each against the partitions before the three."""
    import numpy as np

    newest = np.stack([series.counts[:, max(0, t)] for t in (at, at - 1, at - 2)])
    p, excess = _against(series, newest, at - 2, 1, declared)
    return _Judged(_adjusted(two_of_three(p)), (excess > declared.psi).sum(axis=0) >= 2)


def _week(series: Series, at: int, declared: Monitoring) -> _Judged:
    """The newest seven partitions together."""
    p, excess = _against(series, _window(series, at, _WEEK)[None], at - _WEEK + 1, _WEEK, declared)
    return _Judged(_adjusted(p[0]), excess[0] > declared.psi / 2)


def _against(
    series: Series, windows: np.ndarray, first: int, length: int, declared: Monitoring
) -> tuple[np.ndarray, np.ndarray]:
    """p of each window and column, and its PSI beyond noise: the smaller of that against history and against training.

    The history ends before the partition at position `first`, so that it has none of what is judged.
    """
    import numpy as np

    if first < LEAST_HISTORY:
        return np.full(windows.shape[:2], np.nan), np.zeros(windows.shape[:2])
    history = series.counts[:, max(0, first - declared.history) : first]
    before = np.stack([difference(window, history.sum(axis=1)).excess for window in windows])
    training = np.stack([difference(window, series.reference).excess for window in windows])
    known = series.reference.sum(axis=1) > 0
    return novelty(windows, history, length), np.where(known, np.minimum(before, training), before)


def _adjusted(p: np.ndarray) -> np.ndarray:
    """Adjusted over the columns that are judged; the others stay NaN."""
    import numpy as np

    found, judged = np.full(len(p), np.nan), np.isfinite(p)
    found[judged] = adjusted(p[judged])
    return found


def _window(series: Series, at: int, length: int) -> np.ndarray:
    return series.counts[:, max(0, at - length + 1) : at + 1].sum(axis=1)


def _changed(series: Series, at: int, length: int, declared: Monitoring) -> Difference:
    """A window against the partitions before it, or against training where there are none."""
    first = max(0, at - length + 1)
    history = series.counts[:, max(0, first - declared.history) : first].sum(axis=1)
    return difference(_window(series, at, length), history if first else series.reference)


def _state(column: Column, raised: bool, drifted: bool, judged: bool) -> State:
    if raised:
        return "noted" if column.gain == 0 else "alarm"
    if drifted:
        return "drifted"
    return "ok" if judged else "unjudged"


def _column_drift(
    series: Series,
    at: int,
    i: int,
    verdict: tuple[State, Rule | None, float | None],
    training: dict[int, Difference],
    of: Difference,
) -> ColumnDrift:
    import numpy as np

    _, rule, _ = verdict
    column, known = series.columns[i], series.reference[i].any()
    window = series.counts[i, at - (_WEEK - 1 if rule == "week" else 0) : at + 1].sum(axis=0)
    largest = int(of.largest[i])
    now = float(window[largest] / window.sum()) if window.any() else 0.0
    figures = (
        WindowDrift(length, int(d.rows[i]), *(float(x[i]) for x in (d.psi, d.excess, d.distance, d.p)))
        for length, d in training.items()
    )
    mean = series.means[i, at]
    return ColumnDrift(
        *(column.kind, column.name, column.gain, *verdict),
        windows=tuple(figures) if known else (),
        bin=column.bins[largest] if largest < len(column.bins) else "",
        share_before=now - float(of.change[i]),
        share_now=now,
        mean=None if np.isnan(mean) else float(mean),
        training_mean=column.mean,
    )
