"""Windows of a series that end at some positions: their counts, means and what they are compared with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

from pip_dagster.declaration.monitoring import Monitoring, ReferenceName
from pip_dagster.statistics.distribution import Difference, difference

if TYPE_CHECKING:
    import numpy as np

    from pip_dagster.monitoring.series import Series

_NARROW = 32  # bins


@dataclass(frozen=True, eq=False)
class Sums:
    """Counts by bin, and the rows, sum and sum of squares of the numbers among them, of the shape (columns, positions).

    `there`: whether the window lies within the series.
    """

    counts: np.ndarray
    numbers: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    there: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """NaN where there are no numbers."""
        import numpy as np

        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.numbers > 0, self.total / self.numbers, np.nan)

    @property
    def sd(self) -> np.ndarray:
        """NaN where there are no numbers."""
        import numpy as np

        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt(np.maximum(self.squares / self.numbers - self.mean**2, 0))


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows that end at these positions of a series."""

    series: Series
    at: np.ndarray
    rules: Monitoring

    @cached_property
    def _cumulative(self) -> tuple[np.ndarray, ...]:
        import numpy as np

        series = self.series
        missing, unseen = self.of_bins(series.counts)
        numbers = series.counts.sum(axis=2) - missing - unseen
        means, sds = (
            np.nan_to_num(each if each is not None else np.zeros_like(numbers)) for each in (series.means, series.sds)
        )
        parts = (series.counts, numbers, numbers * means, numbers * (sds**2 + means**2))
        return tuple(np.concatenate([np.zeros_like(each[:, :1]), each.cumsum(axis=1)], axis=1) for each in parts)

    @cached_property
    def by_width(self) -> list[tuple[np.ndarray, int]]:
        """The columns in groups of about as many bins, and how many: a wide column does not make all others wide."""
        import numpy as np

        widths = np.array([len(column.bins) for column in self.series.columns], np.int64)
        wide = widths > _NARROW
        groups = (np.flatnonzero(each) for each in (~wide, wide))
        return [(group, int(widths[group].max())) for group in groups if len(group)]

    def of_bins(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The missing and the never-seen rows of (columns, ..., bins) counts."""
        import numpy as np

        widths = np.array([len(column.bins) for column in self.series.columns], np.int64)
        places = [(widths - back).reshape(-1, *[1] * (counts.ndim - 1)) for back in (2, 1)]
        missing, unseen = (np.take_along_axis(counts, place, axis=-1)[..., 0] for place in places)
        return missing, unseen

    def between(self, first: np.ndarray, end: np.ndarray) -> Sums:
        """Of the partitions from `first` to before `end`."""
        import numpy as np

        low, high = np.maximum(first, 0), np.maximum(end, 0)
        counts, numbers, total, squares = (each[:, high] - each[:, low] for each in self._cumulative)
        return Sums(counts, numbers, total, squares, (first >= 0) & (end > first))

    def window(self, length: int) -> Sums:
        """The `length` partitions up to each position."""
        return self.between(self.at + 1 - length, self.at + 1)

    def reference(self, name: ReferenceName, length: int) -> Sums | None:
        """What a window of this length is compared with; None where that is not declared."""
        import numpy as np

        if name not in self.rules.references:
            return None
        if name == "training":
            return self._training
        first = self.at + 1 - length
        if name == "previous":
            found = self.between(np.maximum(first - self.rules.history, 0), first)
            return Sums(found.counts, found.numbers, found.total, found.squares, first > 0)
        if self.series.season is None:
            return None
        at = self.series.season[self.at]
        found = self.between(at + 1 - length, at + 1)
        return Sums(found.counts, found.numbers, found.total, found.squares, found.there & (at >= 0))

    @cached_property
    def _training(self) -> Sums:
        import numpy as np

        series, shape = self.series, (len(self.series.columns), len(self.at))
        known = [(1.0 if column.mean is not None else 0.0, column.mean or 0.0) for column in series.columns]
        numbers, mean = (np.broadcast_to(np.array(each)[:, None], shape) for each in zip(*known, strict=True))
        counts = np.broadcast_to(series.reference[:, None], (*shape, series.reference.shape[1]))
        return Sums(counts, numbers, mean, numbers, np.ones(len(self.at), bool))

    def phases(self, length: int, back: int = 0) -> np.ndarray:
        """(positions, length) the phases of the partitions of each window that ends `back` partitions earlier."""
        import numpy as np

        if self.series.phases is None:
            return np.zeros((len(self.at), length), np.int64)
        return self.series.phases[np.maximum(self.at[:, None] - back - np.arange(length), 0)]


@dataclass(frozen=True, eq=False)
class Figures:
    """A window of a length against a reference; the fields have the shape (columns, positions).

    `there`: whether both have rows. `shift`: the difference of the means in standard deviations of training, or, where
    they are not known, of the partitions before. `missing`, `unseen`: shares in the window.
    """

    partitions: int
    reference: ReferenceName
    there: np.ndarray
    rows: np.ndarray
    of: Difference
    shift: np.ndarray
    missing: np.ndarray
    unseen: np.ndarray


def figures(windows: Windows, length: int, name: ReferenceName) -> Figures | None:
    """The figures of all columns and positions; None where the reference is not declared."""
    import numpy as np

    reference = windows.reference(name, length)
    if reference is None:
        return None
    window = windows.window(length)
    shape = window.counts.shape[:2]
    found = {field.name: np.zeros(shape) for field in fields(Difference)}
    for group, width in windows.by_width:
        pair = (each.counts[group][..., :width].reshape(-1, width) for each in (window, reference))
        of = difference(*pair)
        for field in found:
            found[field][group] = getattr(of, field).reshape(len(group), -1)
    rows = window.counts.sum(axis=2)
    there = (rows > 0) & (reference.counts.sum(axis=2) > 0) & window.there & reference.there
    known = np.array([np.nan if column.sd is None else column.sd for column in windows.series.columns])[:, None]
    first = windows.at + 1 - length
    usual = windows.between(np.maximum(first - windows.rules.history, 0), first).sd
    sd = np.where(np.isfinite(known), known, usual)
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(sd > 0, (window.mean - reference.mean) / sd, np.nan)
        missing, unseen = [each / rows for each in windows.of_bins(window.counts)]
    return Figures(length, name, there, rows, Difference(**found), shift, missing, unseen)
