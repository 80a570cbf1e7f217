"""What is usual of a column: the counts of the partitions before, the spread between them, how alike neighbors are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.statistics.distribution import stability_of

if TYPE_CHECKING:
    import numpy as np

_UPPER = 1.645
_MOST_ALIKE = 0.95
# A weekly pattern is one that explains more than this of the spread between days.
_EXPLAINED = 0.5
# The share of a spread's upper end that it is itself, on average over columns, from which their likeness is measured.
_KNOWN = 0.25
_AT_ONCE = 2**18  # counts: what fits into a processor's cache


@dataclass(frozen=True, eq=False)
class Usual:
    """What is usual before each of some positions. The arrays have the shape (columns, positions), and more where said.

    Attributes:
        total: (…, bins) counts of the history.
        by_phase: (…, phases, bins) the same by phase of the week or day; one phase where there is no such pattern.
        days: the history's partitions with rows.
        spread: the variance between days, as a mean excess PSI of one day against the others; of a column with a
            pattern, of one day against the others of its phase.
        likeness: the correlation of a day with the day before, from 0 to 0.95.
        means_taken: from how many means the spread is: 1, or with a pattern the phases.
        span: the partitions of the history.
    """

    total: np.ndarray
    by_phase: np.ndarray
    days: np.ndarray
    spread: np.ndarray
    likeness: np.ndarray
    means_taken: np.ndarray
    span: int

    def at(self, places: np.ndarray) -> Usual:
        """Of some of the positions, by their places among them."""
        return Usual(**{name: getattr(self, name)[:, places] for name in _ARRAYS}, span=self.span)

    def reference(self, phases: np.ndarray) -> np.ndarray:
        """The history's counts for windows whose partitions have these phases, (positions, partitions of a window)."""
        import numpy as np

        if self.by_phase.shape[2] == 1:
            return self.total
        matched = sum(self.by_phase[:, np.arange(len(phases)), each] for each in phases.T)
        return np.where(self.means_taken[..., None] > 1, matched, self.total)


_ARRAYS = ("total", "by_phase", "days", "spread", "likeness", "means_taken")


def usual(counts: np.ndarray, positions: np.ndarray, span: int, phases: np.ndarray | None = None) -> Usual:
    """What the `span` partitions before each position show; fewer where there are fewer.

    Args:
        counts: (columns, partitions, bins); columns with fewer bins are filled with zeros.
        positions: places among the partitions.
        span: how many partitions before a position count.
        phases: (partitions,) where in a pattern each partition is, such as its weekday, from 0; None without one.
    """
    import numpy as np

    columns, _, bins = counts.shape
    padded = np.concatenate([np.zeros((columns, span, bins)), counts], axis=1)
    phase = None if phases is None else np.concatenate([np.zeros(span, np.int64), phases])
    step = max(1, _AT_ONCE // max(1, columns * span * bins))
    parts = []
    for start in range(0, max(len(positions), 1), step):
        at = np.asarray(positions, np.int64)[start : start + step, None] + np.arange(span)
        parts.append(
            _usual(padded[:, at], None if phase is None else phase[at], 0 if phase is None else phase.max() + 1)
        )
    joined = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
    return Usual(**dict(zip(_ARRAYS, joined, strict=True)), span=span)


def _usual(history: np.ndarray, phases: np.ndarray | None, of_them: int) -> tuple[np.ndarray, ...]:
    """Of (columns, positions, span, bins) counts: the arrays of `Usual`; `of_them`, how many phases there are."""
    import numpy as np

    total, rows = history.sum(axis=2), history.sum(axis=3)
    there = rows > 0
    days = there.sum(axis=2)
    ones = np.ones(days.shape)
    of_days = _Days(history, rows, history / np.maximum(rows, 1)[..., None])
    spread, likeness, least = _spread(of_days, total[:, :, None], np.zeros(history.shape[1:3], np.int64), there, ones)
    if phases is None:
        return total, total[:, :, None], days, spread, likeness, ones
    member = (phases[:, None] == np.arange(of_them)[:, None]).astype(np.float64)
    by_phase = np.matmul(member, history)
    of_phase = np.matmul(member, there[..., None].astype(np.float64))[..., 0]
    taken = np.maximum((of_phase > 0).sum(axis=2), 1)
    comparable = there & (of_phase[:, np.arange(len(phases))[:, None], phases] > 1)
    within, alike, _ = _spread(of_days, by_phase, phases, comparable, taken)
    has_pattern = (within < (1 - _EXPLAINED) * least) & (days >= 3 * taken)
    found = (np.where(has_pattern, *each) for each in ((within, spread), (alike, likeness), (taken, ones)))
    return total, by_phase, days, *found


@dataclass(frozen=True, eq=False)
class _Days:
    """Counts of the shape (columns, positions, span, bins), with the rows of each day and their shares by bin."""

    counts: np.ndarray
    rows: np.ndarray
    shares: np.ndarray


def _spread(
    history: _Days, groups: np.ndarray, group: np.ndarray, there: np.ndarray, means: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spread and likeness of days around the mean of the others of their group.

    `groups`: (columns, positions, groups, bins) counts; `group`: (positions, span) which one a day is of.

    The spread is the larger one of the excess PSI of a day against the others, and of its chi-squared form: with few
    rows a bin the PSI is too small. Of either, the upper end of a one-sided 95% interval of its noise; the third result
    is the lower end of the latter.
    """
    import numpy as np

    def by_day(each: np.ndarray) -> np.ndarray:
        return each if each.shape[2] == 1 else each[:, np.arange(len(group))[:, None], group]

    days = np.maximum(there.sum(axis=-1), 2)
    rows, of = np.maximum(history.rows, 1), groups.sum(axis=-1)
    fewer = 1 - 1 / np.maximum(days / means, 2)  # a day is compared with the others, not with a mean that has it
    others = by_day(groups) - history.counts
    psi, noise, df = stability_of(history.counts, others, history.rows, by_day(of) - history.rows)
    by_psi = _upper_mean(psi - noise, noise, df, there) * fewer
    of = np.maximum(of, 1)[..., None]
    mean = groups / of
    away = history.shares - by_day(mean)
    away /= by_day(np.sqrt(mean + 0.5 / of))
    away *= there[..., None]
    own = np.einsum("cpdb,cpdb->cpd", away, away)
    noise = df / rows
    variance = _upper_mean(own - noise, noise, df, there) / fewer
    # Different days are independent samples of rows: products of them have no noise in their mean.
    pairs = np.maximum((there[..., 1:] & there[..., :-1]).sum(axis=-1), 1)
    products = np.einsum("cpdb,cpdb->cp", away[:, :, 1:], away[:, :, :-1]) / pairs
    plain = np.where(there, own - noise, 0.0).sum(axis=-1) / days
    return np.maximum(by_psi, variance), _likeness(products, plain, variance, days), 2 * plain / fewer - variance


def _likeness(products: np.ndarray, plain: np.ndarray, variance: np.ndarray, days: np.ndarray) -> np.ndarray:
    """The correlation of neighboring days: the larger one of the column's own, and of that of all columns together.

    That of one column is uncertain by 0.15 after 28 days. Days have causes that columns share.
    """
    import numpy as np

    scale = np.where(variance > 0, variance, np.inf)
    known = _KNOWN * len(products)  # else the days differ by hardly more than sampling, and nothing is to be seen
    together = (products / scale).sum(axis=0) / np.maximum((plain / scale).sum(axis=0), known)
    own = np.maximum(products / scale, together)
    # An estimate of few days is too small by (1 + 3 r) / n (Kendall 1954).
    return np.clip((days * own + 1) / np.maximum(days - 3, 1), 0, _MOST_ALIKE)


def _upper_mean(excess: np.ndarray, noise: np.ndarray, df: np.ndarray, there: np.ndarray) -> np.ndarray:
    import numpy as np

    count = np.maximum(there.sum(axis=-1), 2)
    mean = np.where(there, excess, 0.0).sum(axis=-1) / count
    variance = np.where(there, 2 / np.maximum(df, 1) * noise**2, 0.0).sum(axis=-1) / count**2
    return np.maximum(mean + _UPPER * np.sqrt(variance), 0.0)
