"""Scores, features and decisions over the period, from the profiles that scorings keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.monitoring.drift import ColumnDrift, JudgedPartition, PartitionDrift, at_once, drift_of, judge_all
from pip_dagster.monitoring.series import Series
from pip_dagster.reporting.content import LEAST_ROWS, ColumnLine, Day, Distribution, Figure, RateSeries, Window
from pip_dagster.statistics.distribution import stability

if TYPE_CHECKING:
    import numpy as np

# A partition's drift in a word, and the columns in alarm.
States = tuple[str, tuple[str, ...]]

WEEK = 7
_WEEKS = 6
_BINS = 24
# What is usual before a partition: as many standard deviations around the mean of those before it.
_BAND = 2.0


@dataclass(frozen=True, eq=False)
class Profiled:
    """The series of the report's columns, where its partitions begin in it, and their drift in words by partition.

    `newest`: the drift at the end of the period.
    """

    series: Series
    begin: int
    states: Mapping[str, States]
    newest: PartitionDrift

    @classmethod
    def of(cls, series: Series, rules: Monitoring) -> Profiled:
        """Judge the partitions that were requested."""
        states: dict[str, States] = {}
        for part in at_once(series.positions, len(series.columns)):
            states |= {each.partition_key: states_of(each) for each in judge_all(series, part, rules)}
        (newest,) = drift_of(series, series.positions[-1:], rules)  # whose figures alone are shown
        return cls(series, series.positions[0], states, newest)


def states_of(found: JudgedPartition) -> States:
    """A partition's drift in a word, and the columns in alarm."""
    states = found.states
    columns = found.judged.windows.series.columns
    alarmed = tuple(column.title for column, state in zip(columns, states, strict=True) if state == "alarm")
    if alarmed:
        return "alarm", alarmed
    if "noted" in states:
        return "noted", ()
    return ("unjudged" if {*states} <= {"unjudged", "drifted"} else "ok"), ()


def distributions(found: Profiled) -> tuple[Distribution, ...]:
    """Of each score: training, and the newest weeks of the period."""
    series, end = found.series, len(found.series.partitions)
    result = []
    for i, column in enumerate(series.columns):
        if column.kind != "score" or column.segment is not None:
            continue
        windows = []
        for last in range(end, found.begin, -WEEK):
            first = max(found.begin, last - WEEK)
            counts = series.counts[i, first:last, : len(column.bins)].sum(axis=0)
            rows = int(counts.sum())
            if rows >= LEAST_ROWS:
                keys = series.partitions
                windows.append(Window(keys[first], keys[last - 1], rows, _shares(counts)))
            if len(windows) == _WEEKS:
                break
        reference = series.reference[i, : len(column.bins)]
        training = _shares(reference) if reference.any() else None
        result.append(Distribution(column.name, column.bins, training, int(reference.sum()), tuple(windows[::-1])))
    return tuple(result)


def column_lines(found: Profiled, days: Sequence[Day]) -> tuple[ColumnLine, ...]:
    """Every score and feature; those in alarm first, then those that matter most."""
    series = found.series
    place = {f"{each.kind} {each.name}": i for i, each in enumerate(series.columns) if each.segment is None}
    positions = {key: i for i, key in enumerate(series.partitions)}
    at = [positions.get(day.partition) for day in days]
    daily = _daily(series)
    lines = []
    for each in found.newest.columns:
        if each.kind == "decision" or each.segment is not None:
            continue
        i = place[f"{each.kind} {each.name}"]
        lines.append(_line(series, i, each, tuple(None if t is None else _figure(daily[i, t]) for t in at)))
    order = {"alarm": 0, "noted": 1}
    lines.sort(key=lambda line: (line.kind != "score", order.get(line.state, 2), -(line.weight or 0.0), line.name))
    return tuple(lines)


def _daily(series: Series) -> np.ndarray:
    """PSI beyond noise of each column and partition, NaN where it has fewer than 10 rows or no reference."""
    import numpy as np

    columns, partitions, bins = series.counts.shape
    flat = series.counts.reshape(columns * partitions, bins)
    reference = np.repeat(series.reference, partitions, axis=0)
    psi, noise, _ = stability(flat.astype(np.float64), reference.astype(np.float64))
    excess = (psi - noise).reshape(columns, partitions)
    known = (series.counts.sum(axis=2) >= LEAST_ROWS) & (series.reference.sum(axis=1) > 0)[:, None]
    return np.where(known, excess, np.nan)


def _line(series: Series, i: int, drift: ColumnDrift, daily: tuple[Figure, ...]) -> ColumnLine:
    column = series.columns[i]
    width = len(column.bins)
    week = series.counts[i, -WEEK:, :width].sum(axis=0)
    reference = series.reference[i, :width]
    excess = {window.partitions: window.excess for window in drift.windows if window.reference == "training"}
    rows, of = int(week.sum()), int(reference.sum())
    bins, training, now = _binned(column.bins, reference, week) if rows >= LEAST_ROWS else ((), None, ())
    lasting = [excess[length] for length in (WEEK, 28) if length in excess] or [*excess.values()]
    gain = column.gain
    return ColumnLine(
        kind=column.kind,
        name=column.name,
        state=drift.state,
        gain=gain,
        weight=(1.0 if gain is None else gain) * max(0.0, min(lasting)) if lasting else None,
        p=drift.p,
        psi_1=excess.get(1),
        psi_7=excess.get(WEEK),
        psi_28=excess.get(28),
        changed=drift.changed,
        mean=drift.mean,
        training_mean=drift.training_mean,
        missing_training=float(reference[-2] / of) if of else None,
        missing_now=float(week[-2] / rows) if rows >= LEAST_ROWS else None,
        unseen=int(week[-1]),
        series=daily,
        bins=bins,
        training=training,
        now=now,
    )


def _binned(
    names: tuple[str, ...], reference: np.ndarray, now: np.ndarray
) -> tuple[tuple[str, ...], tuple[float, ...] | None, tuple[float, ...]]:
    """Shares by bin: of many categories the most frequent, and the others together; empty ends are left out."""
    import numpy as np

    q = np.array(_shares(now))
    p = np.array(_shares(reference)) if reference.any() else None
    used = np.flatnonzero((q > 0) | (p > 0 if p is not None else False) | (np.arange(len(q)) < len(q) - 2))
    if len(used) > _BINS:
        largest = q if p is None else np.maximum(p, q)
        ends = used[used >= len(names) - 2]
        kept = np.sort(np.concatenate([used[used < len(names) - 2][_top(largest[used[used < len(names) - 2]])], ends]))
        rest = np.setdiff1d(used, kept)
        listed = (*(names[k] for k in kept), f"{len(rest)} others")
        more = [None if each is None else (*each[kept].tolist(), float(each[rest].sum())) for each in (p, q)]
        return listed, more[0], more[1] or ()
    listed = tuple(names[k] for k in used)
    return listed, None if p is None else tuple(p[used].tolist()), tuple(q[used].tolist())


def _top(values: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.argsort(-values, kind="stable")[: _BINS - 3]


def rates(found: Profiled | None, days: Sequence[Day], history: int) -> tuple[RateSeries, ...]:
    """The share of each decision, or where there is none the mean score, with what was usual before."""
    series = []
    if found:
        positions = {key: i for i, key in enumerate(found.series.partitions)}
        for i, column in enumerate(found.series.columns):
            if column.kind != "decision" or column.segment is not None:
                continue
            counts = found.series.counts[i]
            yes = [int(each) for each in counts[:, 1]]
            rows = [int(each) for each in counts[:, :2].sum(axis=1)]
            share = [y / n if n >= LEAST_ROWS else None for y, n in zip(yes, rows, strict=True)]
            at = [positions.get(day.partition) for day in days]
            low, high = _bands(share, at, history)
            series.append(
                RateSeries(
                    name=column.name,
                    is_rate=True,
                    counts=tuple(None if t is None else yes[t] for t in at),
                    values=tuple(None if t is None else share[t] for t in at),
                    low=low,
                    high=high,
                )
            )
    if not series and any(day.mean_score is not None for day in days):
        values = [day.mean_score if (day.rows or 0) >= LEAST_ROWS else None for day in days]
        low, high = _bands(values, list(range(len(days))), history)
        rows_of = tuple(day.rows for day in days)
        series.append(RateSeries("mean score", False, rows_of, tuple(values), low, high))
    return tuple(series)


def _bands(
    values: Sequence[Figure], at: Sequence[int | None], history: int
) -> tuple[tuple[Figure, ...], tuple[Figure, ...]]:
    """Mean and two standard deviations of up to `history` values before each place; none from fewer than seven."""
    import statistics

    low: list[Figure] = []
    high: list[Figure] = []
    for t in at:
        before = [] if t is None else [each for each in values[max(0, t - history) : t] if each is not None]
        if len(before) < WEEK:
            low.append(None)
            high.append(None)
            continue
        mean, spread = statistics.fmean(before), statistics.stdev(before)
        low.append(mean - _BAND * spread)
        high.append(mean + _BAND * spread)
    return tuple(low), tuple(high)


def _shares(counts: np.ndarray) -> tuple[float, ...]:
    total = counts.sum()
    return tuple(float(each / total) if total else 0.0 for each in counts)


def _figure(value: float) -> Figure:
    return None if value != value else float(value)
