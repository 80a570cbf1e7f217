"""Partitions to be made, as few runs: contiguous ranges with a cap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pip_dagster.declaration.partition import Partition

T = TypeVar("T")


def contiguous(items: Sequence[tuple[Partition, T]], *, at_most: int | None = None) -> list[list[tuple[Partition, T]]]:
    """The partitions in the order of time, parted where one does not begin as the one before it ends.

    A range of partitions in one run has no gaps; none is longer than `at_most`.
    """
    ranges: list[list[tuple[Partition, T]]] = []
    for item in sorted(items, key=lambda item: item[0].start):
        last = ranges[-1] if ranges else None
        if last and last[-1][0].end == item[0].start and (at_most is None or len(last) < at_most):
            last.append(item)
        else:
            ranges.append([item])
    return ranges


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items at even distances, the first and the last among them; the same ones each time."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)] if most > 1 else [items[0]]
