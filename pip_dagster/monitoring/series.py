"""A pipeline's profiles as arrays: for each column its counts, partition by partition, and those of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.ledger.profiles import ColumnKind, LiveScoring, ProfileRow, live_profiled, profile_rows
from pip_dagster.monitoring.finding import is_value
from pip_dagster.warehouse.access import reading

if TYPE_CHECKING:
    import numpy as np
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.spec import Partitions
    from pip_dagster.registry.manifest import Histogram, Manifest
    from pip_dagster.registry.version import ModelVersion

LONGEST = 28  # partitions of the longest window
# The categories, most frequent in training, that are compared each; the others have too few rows, and count as one.
CATEGORIES = 50


@dataclass(frozen=True)
class Column:
    """One column: the names of its bins, the last two for missing and never-seen values, and its reference.

    `reference` holds the counts of the training sample by the same bins; None for a decision or a segment. `mean` and
    `sd` are of training. `gain` is a feature's share of the model's total gain; None where that is not known. `segment`
    and `value`: of the rows with this value of this column only, which may be NULL; no segment for all rows.
    """

    kind: ColumnKind
    name: str
    bins: tuple[str, ...]
    reference: tuple[int, ...] | None
    mean: float | None
    gain: float | None
    sd: float | None = None
    segment: str | None = None
    value: str | None = None

    @property
    def title(self) -> str:
        """Its name, with the segment."""
        return self.name if self.segment is None else f"{self.name} where {self.segment} {is_value(self.value)}"


@dataclass(frozen=True, eq=False)
class Series:
    """All columns over the same partitions, oldest first.

    `counts`: int64 (columns, partitions, bins), where columns with fewer bins are filled with zeros and a partition
    without a profile of a column has none. `reference`: int64 (columns, bins), zeros where there is none.
    `means`, `sds`: float64 (columns, partitions), NaN where there is none. `scorings`: the partitions' live scorings.
    `phases`: the weekday or the hour of each partition; None where the grid has neither. `season`: the place of the
    partition one season before, -1 where there is none. `wanted`: the places of the partitions that were requested;
    those before them are what their figures need.
    """

    partitions: tuple[str, ...]
    columns: tuple[Column, ...]
    counts: np.ndarray
    reference: np.ndarray
    means: np.ndarray
    sds: np.ndarray | None = None
    scorings: tuple[str, ...] = ()
    phases: np.ndarray | None = None
    season: np.ndarray | None = None
    wanted: tuple[int, ...] | None = None

    @property
    def positions(self) -> Sequence[int]:
        """The places of the partitions that were requested."""
        return range(len(self.partitions)) if self.wanted is None else self.wanted


def read_series(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    version: ModelVersion,
    *,
    last: int | None = None,
    first: str | None = None,
    until: str | None = None,
) -> Series:
    """The live partitions that are profiled on the bins of a version, with what their figures need before them.

    Args:
        con: a workspace.
        pipeline: whose.
        version: whose bins.
        last: only the newest so many.
        first: only partitions from this one on.
        until: only partitions up to this one.
    """
    spec, digest = pipeline.spec, version.manifest_digest
    rules = spec.monitoring or Monitoring()
    with reading(con, pipeline.project, purpose=f"{spec.name}: reading profiles"):
        live = live_profiled(con, spec.name, digest, spec.partitions.zone)
        wanted = wanted_of(live, last=last, first=first, until=until)
        needed = needed_for(live, wanted, rules)
        rows = profile_rows(con, spec.name, digest, [live[at].scoring_id for at in needed])
    return series_of([live[at] for at in needed], rows, version.manifest, pipeline, [needed.index(at) for at in wanted])


def wanted_of(
    live: Sequence[LiveScoring], *, last: int | None = None, first: str | None = None, until: str | None = None
) -> list[int]:
    """The places of the requested partitions among those that are live."""
    starts = {each.partition_key: each.partition_start for each in live}
    low, high = (None if key is None else starts.get(key) for key in (first, until))
    found = [
        at
        for at, each in enumerate(live)
        if (low is None or each.partition_start >= low) and (high is None or each.partition_start <= high)
    ]
    return found if last is None else found[-last:]


def needed_for(live: Sequence[LiveScoring], wanted: Sequence[int], rules: Monitoring) -> list[int]:
    """The places of what the figures of the `wanted` partitions are computed from, those included, in order."""
    seasons = season_of([each.partition_start for each in live], rules)
    found: set[int] = set()
    for at in wanted:
        for end, length in zip((at, seasons[at]), reaches(rules), strict=True):
            found.update(range(max(0, end + 1 - length), end + 1))
    return sorted(found)


def reaches(rules: Monitoring) -> tuple[int, int]:
    """How many partitions up to its own, and up to the one of its season, the figures of one are computed from."""
    return LONGEST + rules.history, LONGEST


def season_of(starts: Sequence[datetime], rules: Monitoring) -> list[int]:
    """For each partition the place of the one that began one season before, on the wall clock; -1 where none did."""
    if "season" not in rules.references:
        return [-1] * len(starts)
    clock = [start.replace(tzinfo=None) for start in starts]
    place = {start: at for at, start in enumerate(clock)}
    return [place.get(start - rules.season, -1) for start in clock]


def series_of(
    live: Sequence[LiveScoring],
    rows: Sequence[ProfileRow],
    manifest: Manifest,
    pipeline: Pipeline | None = None,
    wanted: Sequence[int] | None = None,
) -> Series:
    """Arrange profiles of live scorings, which are in time order, on the bins of their manifest."""
    import numpy as np

    place = {each.scoring_id: i for i, each in enumerate(live)}
    rules = (pipeline.spec.monitoring if pipeline else None) or Monitoring()
    by_column: dict[tuple[ColumnKind, str, str | None, str | None], list[ProfileRow]] = {}
    for row in rows:
        segment = row.column[2]
        if segment is None or pipeline is None or segment in rules.segments:  # else it was declared once
            by_column.setdefault(row.column, []).append(row)
    ordered = sorted(by_column, key=lambda each: (each[2] or "", each[3] or "", _ORDER[each[0]], each[1]))
    newest = {each: max(by_column[each], key=lambda row: place[row.scoring_id]) for each in ordered}
    columns = tuple(_column(each, newest[each].gain, manifest) for each in ordered)
    kept = [_frequent(each, manifest) for each in ordered]
    width = max((len(column.bins) for column in columns), default=0)
    counts = np.zeros((len(columns), len(live), width), np.int64)
    reference = np.zeros((len(columns), width), np.int64)
    means, sds = (np.full((len(columns), len(live)), np.nan) for _ in range(2))
    for i, (each, column) in enumerate(zip(ordered, columns, strict=True)):
        if column.reference is not None:
            reference[i, : len(column.reference)] = column.reference
        found = by_column[each]
        at = [place[row.scoring_id] for row in found]
        counts[i, at, : len(column.bins)] = [(*_merged(row.counts, kept[i]), row.missing, row.unseen) for row in found]
        means[i, at] = [np.nan if row.mean is None else row.mean for row in found]
        sds[i, at] = [np.nan if row.sd is None else row.sd for row in found]
    starts = [each.partition_start for each in live]
    return Series(
        tuple(each.partition_key for each in live),
        *(columns, counts, reference, means, sds),
        scorings=tuple(each.scoring_id for each in live),
        phases=_phases(starts, pipeline.spec.partitions if pipeline else None, rules.history),
        season=np.array(season_of(starts, rules), np.int64),
        wanted=None if wanted is None else tuple(wanted),
    )


_ORDER: dict[ColumnKind, int] = {"score": 0, "decision": 1, "feature": 2}


def _phases(starts: Sequence[datetime], declared: Partitions | None, history: int) -> np.ndarray | None:
    """The weekday, or the hour; of partitions that are shorter than an hour where the history has three days of them.

    Else each hour would be compared with itself alone, in a history that has it once.
    """
    import numpy as np

    if declared is None:
        return None
    if declared.every == "day":
        return np.array([start.weekday() for start in starts], np.int64)
    step = declared.step
    if step is None or (step < timedelta(hours=1) and history * step < timedelta(days=3)):
        return None
    return np.array([start.hour for start in starts], np.int64)


def _column(of: tuple[ColumnKind, str, str | None, str | None], gain: float | None, manifest: Manifest) -> Column:
    kind, name, segment, value = of
    found = {"score": manifest.score_reference, "feature": manifest.feature_reference}.get(kind, {}).get(name)
    bins = ("false", "true") if found is None else _bins(found)
    if found is not None and (kept := _frequent(of, manifest)):
        bins = (*(bins[at] for at in kept), "other values")
    if found is None or segment is not None:  # training is not known by segment
        return Column(kind, name, (*bins, "missing", "never seen"), None, None, gain, None, segment, value)
    reference = (*_merged(found.counts, _frequent(of, manifest)), found.missing, 0)
    return Column(kind, name, (*bins, "missing", "never seen"), reference, found.mean, gain, found.sd)


def _frequent(of: tuple[ColumnKind, str, str | None, str | None], manifest: Manifest) -> tuple[int, ...]:
    """The places of the categories that have a bin of their own; empty where all have."""
    found = manifest.feature_reference.get(of[1]) if of[0] == "feature" else None
    if found is None or found.labels is None or len(found.labels) <= CATEGORIES:
        return ()
    by_rows = sorted(range(len(found.counts)), key=lambda at: (-found.counts[at], at))
    return tuple(sorted(by_rows[:CATEGORIES]))


def _merged(counts: Sequence[int], kept: Sequence[int]) -> Sequence[int]:
    if not kept:
        return counts
    own = [counts[at] for at in kept]
    return [*own, sum(counts) - sum(own)]


def _bins(histogram: Histogram) -> tuple[str, ...]:
    """What each bin holds, in words."""
    if histogram.labels is not None:
        return tuple(repr(label) for label in histogram.labels)
    edges = [f"{edge:.6g}" for edge in histogram.edges]
    if not edges:
        return ("any number",)
    between = (f"above {low} up to {high}" for low, high in zip(edges[:-1], edges[1:], strict=True))
    return (f"up to {edges[0]}", *between, f"above {edges[-1]}")
