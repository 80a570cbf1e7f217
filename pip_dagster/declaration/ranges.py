"""Lists of partitions: as contiguous ranges, as an evenly spaced sample."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, TypeVar


class Stretch(Protocol):
    """A half-open stretch of time, such as a partition."""

    @property
    def start(self) -> datetime: ...  # noqa: D102

    @property
    def end(self) -> datetime: ...  # noqa: D102


S = TypeVar("S", bound=Stretch)
T = TypeVar("T")


def contiguous(items: Sequence[S], *, at_most: int | None = None) -> list[list[S]]:
    """The items in the order of time, divided wherever one does not start at the end of the one before it.

    No range has a gap or is longer than `at_most`.
    """
    ranges: list[list[S]] = []
    for item in sorted(items, key=lambda item: item.start):
        last = ranges[-1] if ranges else None
        if last and last[-1].end == item.start and (at_most is None or len(last) < at_most):
            last.append(item)
        else:
            ranges.append([item])
    return ranges


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items at even distances, the first and the last among them; the same ones each time."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)] if most > 1 else [items[0]]
