"""The rows of some partitions in memory: the frames of a range, and the rows of each partition in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pip_dagster.quality.frame import Columns, Use, uses
from pip_dagster.quality.suite import Expectation
from pip_dagster.quality.verdict import Judgement

if TYPE_CHECKING:
    import numpy as np

Numbered = tuple[int, Expectation]
"""An expectation with its number among those that are evaluated."""


@dataclass(frozen=True)
class Chunk:
    """Rows of whole partitions, ordered by partition and row id; `partitions` may have no rows."""

    partitions: Sequence[str]
    columns: Columns

    @cached_property
    def row_ids(self) -> np.ndarray[Any, Any]:
        """For every row, its id."""
        return self.columns.row_ids.to_numpy()

    @cached_property
    def slices(self) -> Mapping[str, slice]:
        """The rows of every partition."""
        import numpy as np
        import pandas as pd

        codes = pd.Categorical(self.columns.partitions, categories=list(self.partitions)).codes
        starts = np.searchsorted(codes, np.arange(len(self.partitions) + 1))
        return {p: slice(int(starts[i]), int(starts[i + 1])) for i, p in enumerate(self.partitions)}


@dataclass
class Tally:
    """The results so far: judgements by (partition, expectation), and the rows that broke an expectation."""

    judgements: dict[tuple[str, int], Judgement] = field(default_factory=dict)
    broken: list[tuple[int, np.ndarray[Any, Any], np.ndarray[Any, Any]]] = field(default_factory=list)
    """(expectation, indexes into the evaluated partitions, row ids)."""


def grouped(expectations: Iterable[Numbered]) -> Iterator[tuple[dict[str, Use], list[Numbered]]]:
    """Group expectations so that all members of a group use each column in the same way and can share one frame."""
    groups: list[tuple[dict[str, Use], list[Numbered]]] = []
    for i, expectation in expectations:
        own = uses(expectation)
        for shared, members in groups:
            if all(shared.get(column, use) == use for column, use in own.items()):
                shared.update(own)
                members.append((i, expectation))
                break
        else:
            groups.append((own, [(i, expectation)]))
    yield from groups
