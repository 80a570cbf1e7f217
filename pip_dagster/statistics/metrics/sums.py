"""Sums of which metrics are made, and which add up over partitions: the metrics of a window are not means of days'."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import to_json

from pip_dagster.statistics.metrics.bins import middle
from pip_dagster.statistics.metrics.curve import Curve, Tenths
from pip_dagster.statistics.metrics.figures import Figures, figures, metric_values
from pip_dagster.statistics.metrics.spec import MetricSpec, MetricValue
from pip_dagster.statistics.metrics.sql import curves as curves_of

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1


class BinCounts(NamedTuple):
    """The fine bins that have rows, ascending: their codes, and the sums of weights and of outcomes in each."""

    codes: np.ndarray
    c: np.ndarray
    v: np.ndarray


class ReliabilityBin(NamedTuple):
    """One of ten bins of about equal counts: rows (or their weights), mean score and mean outcome, None where empty."""

    rows: float
    score: float | None
    outcome: float | None


@dataclass(frozen=True, eq=False)
class MetricSums:
    """The sums of one group of rows; `a + b` are those of both groups together.

    `totals`: numbers, or for `cells` the weights by actual and predicted class. `bins`: those of each curve.
    """

    layout: Mapping[str, Any]
    totals: Mapping[str, np.ndarray]
    bins: tuple[BinCounts, ...]

    @classmethod
    def total(cls, parts: Sequence[MetricSums]) -> MetricSums:
        """The sums of all groups together.

        Raises:
            ValueError: no groups, or groups whose sums mean different things.
        """
        stack = Stack.of(parts)
        bins = (BinCounts(codes, c.sum(axis=0), v.sum(axis=0)) for codes, c, v in stack.bins)
        return cls(parts[0].layout, {name: each.sum(axis=0) for name, each in stack.totals.items()}, tuple(bins))

    def __add__(self, other: MetricSums) -> MetricSums:
        return MetricSums.total([self, other])

    @property
    def rows(self) -> int:
        """How many labelled rows there are."""
        return round(float(self.totals["n"]))

    def metrics(self) -> dict[str, MetricValue]:
        """All figures; those of the order of scores from the fine bins."""
        return Stack.of([self]).metrics()[0]

    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """Mean score and outcome by score; none for a kind without a curve, or of a curve for each class."""
        found = Stack.of([self]).curves(None)
        return reliability_bins(found[0].tenths, 0) if found and self.layout["kind"] != "multiclass" else ()

    def confusion(self) -> np.ndarray:
        """The weights (actual, predicted) of a multiclass model's classes."""
        k = len(self.layout["classes"])
        return self.totals["cells"].reshape(k, k)

    def to_text(self) -> str:
        """JSON that `from_text` reads."""
        totals = {name: _plain(each) for name, each in self.totals.items()}
        bins = [[_plain(each) for each in one] for one in self.bins]
        found = {"format": FORMAT, "layout": dict(self.layout), "totals": totals, "bins": bins}
        return to_json(found, inf_nan_mode="constants").decode()  # in a third of json's time

    @classmethod
    def from_text(cls, text: str) -> MetricSums:
        """Read what `to_text` wrote.

        Raises:
            ValueError: it is of another format.
        """
        import numpy as np

        found = json.loads(text)
        if found["format"] != FORMAT:
            raise ValueError(f"metric sums of format {found['format']}; this version reads format {FORMAT}")
        bins = (
            BinCounts(np.asarray(codes, np.int64), np.asarray(c, np.float64), np.asarray(v, np.float64))
            for codes, c, v in found["bins"]
        )
        totals = {name: np.asarray(each, np.float64) for name, each in found["totals"].items()}
        return cls(found["layout"], totals, tuple(bins))


@dataclass(frozen=True, eq=False)
class Stack:
    """The sums of T groups, such as partitions: totals (T, …), and for each curve codes (bins,) and sums (T, bins)."""

    spec: MetricSpec
    totals: Mapping[str, np.ndarray]
    bins: tuple[BinCounts, ...]

    @classmethod
    def of(cls, parts: Sequence[MetricSums]) -> Stack:
        """Arrange groups for `metrics`, which takes many windows of them at once.

        Raises:
            ValueError: no groups, or groups whose sums mean different things.
        """
        import numpy as np

        if not parts:
            raise ValueError("no sums to add up")
        layout = parts[0].layout
        if other := next((part for part in parts if part.layout != layout), None):
            raise ValueError(f"sums of {dict(other.layout)} do not add up with those of {dict(layout)}")
        names = dict.fromkeys(name for part in parts for name in part.totals)
        totals = {name: np.array([part.totals.get(name, np.nan) for part in parts], np.float64) for name in names}
        bins = (_side_by_side([part.bins[i] for part in parts]) for i in range(len(parts[0].bins)))
        return cls(MetricSpec.of_layout(layout), totals, tuple(bins))

    def __len__(self) -> int:
        return len(self.totals["n"])

    def figures(self, weights: np.ndarray | None = None) -> tuple[Figures, Mapping[str, np.ndarray]]:
        """The figures of K windows, and their totals.

        Args:
            weights: (K, T) how often each group counts in each window; all groups, one window when None.
        """
        totals = {name: _weighted(weights, each) for name, each in self.totals.items()}
        return figures(self.spec, totals, self.curves(weights)), totals

    def metrics(self, weights: np.ndarray | None = None) -> list[dict[str, MetricValue]]:
        """The metrics of each of K windows; `weights` as in `figures`."""
        found, totals = self.figures(weights)
        return [metric_values(found, totals, i) for i in range(len(totals["n"]))]

    def curves(self, weights: np.ndarray | None) -> list[Curve]:
        """The curves of K windows."""
        import numpy as np

        found = []
        for (codes, c, v), (_, _, scale) in zip(self.bins, curves_of(self.spec), strict=True):
            c, v = _weighted(weights, c), _weighted(weights, v)
            c2 = c
            if self.spec.weight is not None and "w2" in self.totals:
                of = _weighted(weights, self.totals["w2"]) / np.maximum(_weighted(weights, self.totals["w"]), 1e-300)
                c2 = c * of[:, None]
            found.append(Curve.of_bins(c, v, c * middle(codes, scale), c2))
        return found


def reliability_bins(of: Tenths, at: int) -> tuple[ReliabilityBin, ...]:
    """The ten bins of one group."""
    c, v, x = (each[at].tolist() for each in (of.c, of.v, of.x))
    return tuple(
        ReliabilityBin(rows, score / rows if rows else None, outcome / rows if rows else None)
        for rows, outcome, score in zip(c, v, x, strict=True)
    )


def _side_by_side(parts: Sequence[BinCounts]) -> BinCounts:
    """The bins of T groups as (T, bins) over the codes that any of them has."""
    import numpy as np

    codes, place = np.unique(np.concatenate([part.codes for part in parts]), return_inverse=True)
    group = np.repeat(np.arange(len(parts)), [len(part.codes) for part in parts])
    found = []
    for name in ("c", "v"):
        sums = np.zeros((len(parts), len(codes)))
        sums[group, place] = np.concatenate([getattr(part, name) for part in parts])
        found.append(sums)
    return BinCounts(codes, *found)


def _weighted(weights: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    """The sums of each window; NaN where a group that counts has NaN."""
    import numpy as np

    if weights is None:
        return values.sum(axis=0, keepdims=True)
    missing = np.isnan(values)
    if not missing.any():
        return np.asarray(weights @ values)
    return np.where((weights != 0).astype(float) @ missing > 0, np.nan, weights @ np.where(missing, 0.0, values))


def _plain(values: np.ndarray) -> Any:
    """Numbers for JSON, whole ones without a point."""
    if values.ndim == 0:
        found = float(values)
        return int(found) if found.is_integer() else found
    if values.dtype.kind == "i" or (values == values.round()).all():  # nearly always; NaN is not
        return values.astype("int64").tolist()
    return [int(each) if float(each).is_integer() else each for each in values.tolist()]
