"""Partitions grouped into as few runs as possible: contiguous ranges with a maximum length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pip_dagster.declaration.partition import Partition

T = TypeVar("T")


def contiguous(items: Sequence[tuple[Partition, T]], *, at_most: int | None = None) -> list[list[tuple[Partition, T]]]:
    """The partitions in order of time, divided wherever one does not start at the end of the one before it.

    No range has a gap or is longer than `at_most`.
    """
    ranges: list[list[tuple[Partition, T]]] = []
    for item in sorted(items, key=lambda item: item[0].start):
        last = ranges[-1] if ranges else None
        if last and last[-1][0].end == item[0].start and (at_most is None or len(last) < at_most):
            last.append(item)
        else:
            ranges.append([item])
    return ranges
