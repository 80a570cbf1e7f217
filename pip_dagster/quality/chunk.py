"""Some partitions' rows in memory: the frames of a range, and each partition's place in them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pip_dagster.quality.frame import Columns, Use, uses
from pip_dagster.quality.suite import Expectation
from pip_dagster.quality.verdict import Judgement

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Numbered = tuple[int, Expectation]
"""An expectation with its place among those asked for."""


@dataclass(frozen=True)
class Chunk:
    """Rows of whole partitions, ordered by partition and row id; ``partitions`` may have no rows."""

    partitions: Sequence[str]
    columns: Columns

    @cached_property
    def codes(self) -> "np.ndarray[Any, Any]":
        """For every row the place of its partition in ``partitions``."""
        import pandas as pd

        return pd.Categorical(self.columns.partitions, categories=list(self.partitions)).codes.astype("int64")

    @cached_property
    def row_ids(self) -> "np.ndarray[Any, Any]":
        """For every row its id."""
        return self.columns.row_ids.to_numpy()

    @cached_property
    def slices(self) -> Mapping[str, slice]:
        """The rows of every partition."""
        import numpy as np

        starts = np.searchsorted(self.codes, np.arange(len(self.partitions) + 1))
        return {p: slice(int(starts[i]), int(starts[i + 1])) for i, p in enumerate(self.partitions)}

    def count(self, rows: "np.ndarray[Any, Any]") -> list[int]:
        """How many of some rows (positions, or a boolean for every row) each partition has."""
        import numpy as np

        return [int(n) for n in np.bincount(self.codes[rows], minlength=len(self.partitions))]


@dataclass
class Tally:
    """What is known so far: judgements by (partition, expectation), and the rows broken by expectation."""

    judgements: dict[tuple[str, int], Judgement] = field(default_factory=dict)
    broken: list[tuple[int, "np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]] = field(default_factory=list)
    """(expectation, codes into the partitions evaluated, row ids)."""


def grouped(expectations: Iterable[Numbered]) -> Iterator[tuple[dict[str, Use], list[Numbered]]]:
    """Group expectations so that within a group every column is used in one way, and one frame serves the group."""
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


def unused(name: str, frame: "pd.DataFrame") -> str:
    """A column name that a frame does not have yet."""
    while name in frame.columns:
        name += "_"
    return name
