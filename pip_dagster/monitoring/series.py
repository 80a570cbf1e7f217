"""A pipeline's profiles as arrays: for each column its counts, partition by partition, and those of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.ledger.profiles import ColumnKind, ProfileEntry, live_profiles
from pip_dagster.warehouse.access import reading

if TYPE_CHECKING:
    import numpy as np
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.manifest import Histogram, Manifest
    from pip_dagster.registry.version import ModelVersion


@dataclass(frozen=True)
class Column:
    """One column: the names of its bins, the last two for missing and never-seen values, and its reference.

    `reference` holds the counts of the training sample by the same bins; None for a decision. `gain` is a feature's
    share of the model's total gain; None where that is not known.
    """

    kind: ColumnKind
    name: str
    bins: tuple[str, ...]
    reference: tuple[int, ...] | None
    mean: float | None
    gain: float | None


@dataclass(frozen=True, eq=False)
class Series:
    """All columns over the same partitions, oldest first.

    `counts`: int64 (columns, partitions, bins), where columns with fewer bins are filled with zeros and a partition
    without a profile of a column has none. `reference`: int64 (columns, bins), zeros where there is none.
    `means`: float64 (columns, partitions), NaN where there is none.
    """

    partitions: tuple[str, ...]
    columns: tuple[Column, ...]
    counts: np.ndarray
    reference: np.ndarray
    means: np.ndarray


def read_series(
    con: DuckDBPyConnection, pipeline: Pipeline, version: ModelVersion, *, last: int | None = None
) -> Series:
    """The live partitions that are profiled on the bins of a version, or the newest `last` of them."""
    with reading(con, pipeline.project, purpose=f"{pipeline.spec.name}: reading profiles"):
        profiles = live_profiles(con, pipeline.spec.name, version.manifest_digest, last=last)
    return series_of(profiles, version.manifest)


def series_of(profiles: Sequence[ProfileEntry], manifest: Manifest) -> Series:
    """Arrange profiles, which are in time order, on the bins of their manifest."""
    import numpy as np

    keys = tuple(dict.fromkeys(each.partition_key for each in profiles))
    place = {key: i for i, key in enumerate(keys)}
    by_column: dict[tuple[ColumnKind, str], list[ProfileEntry]] = {}
    for each in profiles:
        by_column.setdefault((each.column_kind, each.name), []).append(each)
    ordered = sorted(by_column, key=lambda column: (_ORDER[column[0]], column[1]))
    columns = tuple(_column(kind, name, by_column[kind, name][-1], manifest) for kind, name in ordered)
    width = max((len(column.bins) for column in columns), default=0)
    counts = np.zeros((len(columns), len(keys), width), np.int64)
    reference = np.zeros((len(columns), width), np.int64)
    means = np.full((len(columns), len(keys)), np.nan)
    for i, column in enumerate(columns):
        if column.reference is not None:
            reference[i, : len(column.reference)] = column.reference
        for each in by_column[column.kind, column.name]:
            t = place[each.partition_key]
            counts[i, t, : len(column.bins)] = (*each.counts, each.missing, each.unseen)
            means[i, t] = np.nan if each.mean is None else each.mean
    return Series(keys, columns, counts, reference, means)


_ORDER: dict[ColumnKind, int] = {"score": 0, "decision": 1, "feature": 2}


def _column(kind: ColumnKind, name: str, newest: ProfileEntry, manifest: Manifest) -> Column:
    found = {"score": manifest.score_reference, "feature": manifest.feature_reference}.get(kind, {}).get(name)
    bins = ("false", "true") if found is None else _bins(found)
    reference = None if found is None else (*found.counts, found.missing, 0)
    mean = None if found is None else found.mean
    return Column(kind, name, (*bins, "missing", "never seen"), reference, mean, newest.gain)


def _bins(histogram: Histogram) -> tuple[str, ...]:
    """What each bin holds, in words."""
    if histogram.labels is not None:
        return tuple(repr(label) for label in histogram.labels)
    edges = [f"{edge:.6g}" for edge in histogram.edges]
    if not edges:
        return ("any number",)
    between = (f"above {low} up to {high}" for low, high in zip(edges[:-1], edges[1:], strict=True))
    return (f"up to {edges[0]}", *between, f"above {edges[-1]}")
