"""Drift: windows of 1, 7 and 28 partitions against their references, and whether they are unlike those before them.

`judge_all` judges many partitions at once, in arrays (`rules.py`, `windows.py`), of which what is shown is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster.declaration.monitoring import Monitoring, ReferenceName
from pip_dagster.monitoring.finding import is_value
from pip_dagster.monitoring.rules import RULES, DriftVerdict, Rule, judge
from pip_dagster.monitoring.series import LONGEST, Column, Series
from pip_dagster.monitoring.windows import Figures, Windows, figures
from pip_dagster.plural import plural
from pip_dagster.statistics.novelty import LEAST_HISTORY

if TYPE_CHECKING:
    import numpy as np

WINDOWS = (1, 7, LONGEST)
_PARTITIONS, _CELLS = 366, 73_200  # of a part that is judged at once; cells: a column at a position
# glibc returns the memory of a freed array to the system, unless one as large was freed before. So the first judgement
# of a process would spend half of its time on new pages. 32 MB is the most that glibc adapts to.
_REUSED = 32_000_000
REFERENCES: tuple[ReferenceName, ...] = ("training", "previous", "season")
_LASTING: tuple[int, ReferenceName] = (LONGEST, "training")
# drifted: unlike training for 28 partitions, and no longer news. noted: in alarm, but the model does not use it.
State = Literal["alarm", "noted", "drifted", "ok", "unjudged"]
STATES: tuple[State, ...] = ("alarm", "noted", "drifted", "ok", "unjudged")


@dataclass(frozen=True)
class WindowDrift:
    """A window against a reference: its rows, PSI, PSI beyond noise, Jensen-Shannon distance (base 2), chi-squared p.

    `shift`: the difference of the means in standard deviations. `missing`, `unseen`: shares in the window.
    """

    partitions: int
    reference: ReferenceName
    rows: int
    psi: float
    excess: float
    distance: float
    p: float
    shift: float | None
    missing: float
    unseen: float


@dataclass(frozen=True)
class ColumnDrift:
    """One column at one partition.

    `p` is the smallest adjusted one of the rules, None where there are too few partitions before it. `threshold` is
    what the rule compares with: PSI beyond noise, or a rise of the share. `bin` is where the share changed most from
    the partitions before: `share_before`, `share_now`, over the window of the rule, of one partition without one. The
    means are those of the partition and of training; they are not stored with a judgement.
    """

    kind: str
    name: str
    segment: str | None
    value: str | None
    gain: float | None
    state: State
    rule: Rule | None
    p: float | None
    threshold: float
    windows: tuple[WindowDrift, ...]
    bin: str
    share_before: float
    share_now: float
    mean: float | None = None
    training_mean: float | None = None

    @property
    def title(self) -> str:
        """Its name, with the segment."""
        return self.name if self.segment is None else f"{self.name} where {self.segment} {is_value(self.value)}"

    @property
    def changed(self) -> str:
        """The largest change, in words."""
        return f"{self.bin}: {self.share_before:.1%} to {self.share_now:.1%}" if self.bin else ""

    def window(self, partitions: int, reference: ReferenceName) -> WindowDrift | None:
        """One of its windows; None where it is not there."""
        found = (each for each in self.windows if (each.partitions, each.reference) == (partitions, reference))
        return next(found, None)

    @property
    def excess(self) -> float | None:
        """PSI beyond noise of the newest partition against training; without training, against those before."""
        found = self.window(1, "training") or self.window(1, "previous")
        return found.excess if found else None


@dataclass(frozen=True, eq=False)
class JudgedDrift:
    """Many partitions of a series, judged: arrays of the shape (columns, positions).

    `state`: the numbers of `STATES`; `lasting`: the figures of the longest window against training, which it is by.
    """

    windows: Windows
    verdict: DriftVerdict
    state: np.ndarray
    threshold: np.ndarray
    lasting: Figures | None

    @cached_property
    def figures(self) -> tuple[Figures, ...]:
        """Of each window and reference."""
        listed = [(length, name) for length in WINDOWS for name in REFERENCES]
        found = (self.lasting if each == _LASTING else figures(self.windows, *each) for each in listed)
        return tuple(each for each in found if each)

    @cached_property
    def changes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The place of the bin whose share changed most, and its shares before and now."""
        return _changes(self.windows, self.verdict)


@dataclass(frozen=True)
class PartitionDrift:
    """One partition, judged now or read as it was stored.

    `history`: how many partitions before it show what is usual. `max_psi`: the largest PSI beyond noise of the
    partition against training, of the columns that matter to the model. `columns`: the worst first; scores and
    decisions are what people act on; then what the model uses most.
    """

    partition_key: str
    scoring_id: str | None
    rows: int
    history: int
    max_psi: float | None
    columns: tuple[ColumnDrift, ...]

    @property
    def is_judged(self) -> bool:
        """Whether any column is."""
        return any(each.state != "unjudged" for each in self.columns)

    @property
    def alarms(self) -> tuple[ColumnDrift, ...]:
        """The columns in alarm."""
        return tuple(each for each in self.columns if each.state == "alarm")

    @property
    def text(self) -> str:
        """The verdict in words."""
        if not self.is_judged:
            before, needed = plural(self.history, "partition"), LEAST_HISTORY + 2
            return f"Not judged yet: {before} before it; {needed} are needed to know what is usual."
        if not self.alarms:
            return "No column is in alarm."
        return "In alarm: " + "; ".join(f"{each.title}, {each.changed}" for each in self.alarms)

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        own = {name: getattr(self, name) for name in ("partition_key", "scoring_id", "rows", "history")}
        return own | {"columns": [_dict(each) for each in self.columns]}


def by_importance(columns: Iterable[ColumnDrift]) -> tuple[ColumnDrift, ...]:
    """Columns in the order of `PartitionDrift`."""
    return tuple(sorted(columns, key=lambda c: (STATES.index(c.state), c.kind == "feature", -(c.gain or 0.0), c.title)))


@dataclass(frozen=True, eq=False)
class JudgedPartition:
    """One partition of those that were judged together; `place` is its place among them."""

    judged: JudgedDrift
    place: int

    @property
    def at(self) -> int:
        """Its place in the series."""
        return int(self.judged.windows.at[self.place])

    @property
    def partition_key(self) -> str:
        """The partition."""
        return self.judged.windows.series.partitions[self.at]

    @property
    def states(self) -> tuple[State, ...]:
        """Those of the columns, in the order of the series."""
        return tuple(STATES[each] for each in self.judged.state[:, self.place].tolist())

    @property
    def max_psi(self) -> float | None:
        """As of `PartitionDrift`."""
        of = next((f for f in self.judged.figures if (f.partitions, f.reference) == (1, "training")), None)
        used = [each.gain != 0 for each in self.judged.windows.series.columns]
        found = [] if of is None else of.of.excess[used & of.there[:, self.place], self.place]
        return float(max(found)) if len(found) else None

    @cached_property
    def drift(self) -> PartitionDrift:
        """All of it."""
        windows = self.judged.windows
        return PartitionDrift(
            partition_key=self.partition_key,
            scoring_id=windows.series.scorings[self.at] if windows.series.scorings else None,
            rows=int(windows.series.counts[:, self.at].sum(axis=1).max(initial=0)),
            history=min(self.at, windows.rules.history),
            max_psi=self.max_psi,
            columns=by_importance(_column(self.judged, i, self.place) for i in range(len(self.judged.state))),
        )


def drift_of(series: Series, positions: Sequence[int], rules: Monitoring) -> list[PartitionDrift]:
    """Judge the partitions at these places of a series, and the windows that end with them."""
    parts = at_once(positions, len(series.columns))
    return [each.drift for part in parts for each in judge_all(series, part, rules)]


def at_once(positions: Sequence[int], columns: int) -> Iterator[Sequence[int]]:
    """The positions in parts that can be judged in a small part of a run's memory: some 200 bytes a bin."""
    size = max(1, min(_PARTITIONS, _CELLS // max(columns, 1)))
    for start in range(0, len(positions), size):
        yield positions[start : start + size]


def judge_all(series: Series, positions: Sequence[int], rules: Monitoring) -> list[JudgedPartition]:
    """The same as arrays, of which what is shown is built; what is not shown is not computed."""
    import numpy as np

    np.empty(_REUSED // 8)  # never touched
    windows = Windows(series, np.array(positions, np.int64), rules)
    verdict = judge(windows)
    lasting = figures(windows, *_LASTING)
    raised = verdict.rule >= 0
    unused = np.array([column.gain == 0 for column in series.columns], bool)[:, None]
    state = np.where(np.isfinite(verdict.p), STATES.index("ok"), STATES.index("unjudged"))
    if lasting:
        state[lasting.there & (lasting.of.excess > rules.psi / 2)] = STATES.index("drifted")
    state = np.where(raised, np.where(unused, STATES.index("noted"), STATES.index("alarm")), state)
    by_rule = np.array([rules.missing, rules.unseen, rules.psi, rules.psi / 2, rules.psi])  # the last for none
    judged = JudgedDrift(windows, verdict, state, by_rule[verdict.rule], lasting)
    return [JudgedPartition(judged, place) for place in range(len(positions))]


def _changes(windows: Windows, verdict: DriftVerdict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bin that changed most over the window of the rule, with its shares before and now."""
    import numpy as np

    parts = []
    for length in (1, 7):
        window, before = windows.window(length), windows.reference("previous", length)
        training = windows.reference("training", length)
        assert before
        counts = np.where(before.there[:, None], before.counts, training.counts if training else 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts.append([np.nan_to_num(each / each.sum(axis=2, keepdims=True)) for each in (window.counts, counts)])
    is_week = (verdict.length == 7)[..., None]
    now, then = (np.where(is_week, week, day) for day, week in zip(*parts, strict=True))
    largest = np.where(then.any(axis=2), np.abs(now - then).argmax(axis=2), now.argmax(axis=2))
    widths = np.array([len(column.bins) for column in windows.series.columns], np.int64)[:, None]
    for rule, back in (("missing", 2), ("unseen", 1)):
        largest = np.where(verdict.rule == RULES.index(rule), widths - back, largest)
    shares = (np.take_along_axis(each, largest[..., None], axis=2)[..., 0] for each in (then, now))
    return largest, *shares


def _column(judged: JudgedDrift, i: int, place: int) -> ColumnDrift:
    column: Column = judged.windows.series.columns[i]
    changed, before, now = (each[i, place] for each in judged.changes)
    rule, p = int(judged.verdict.rule[i, place]), judged.verdict.p[i, place]
    mean = judged.windows.series.means[i, judged.windows.at[place]]
    listed = tuple(_window(each, i, place) for each in judged.figures if each.there[i, place])
    return ColumnDrift(
        *(column.kind, column.name, column.segment, column.value, column.gain),
        state=STATES[judged.state[i, place]],
        rule=RULES[rule] if rule >= 0 else None,
        p=_known(p),
        threshold=float(judged.threshold[i, place]),
        windows=listed,
        bin=column.bins[changed] if changed < len(column.bins) else "",
        share_before=float(before),
        share_now=float(now),
        mean=_known(mean),
        training_mean=column.mean,
    )


def _window(of: Figures, i: int, place: int) -> WindowDrift:
    found = (float(each[i, place]) for each in (of.of.psi, of.of.excess, of.of.distance, of.of.p))
    rest = (float(each[i, place]) for each in (of.missing, of.unseen))
    psi, excess, distance, p = found
    missing, unseen = rest
    shift = _known(of.shift[i, place])
    return WindowDrift(
        *(of.partitions, of.reference, int(of.rows[i, place]), psi, excess, distance, p, shift, missing, unseen)
    )


def _known(value: float) -> float | None:
    return None if value != value else float(value)


def _dict(each: ColumnDrift) -> dict[str, Any]:
    found = {field.name: getattr(each, field.name) for field in fields(each)}
    return found | {"title": each.title, "windows": [vars(window) for window in each.windows]}
