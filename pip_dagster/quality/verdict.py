"""What an evaluation returns: a verdict per partition and expectation, and the rows that broke one."""

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster.quality.suite import Expectation

if TYPE_CHECKING:
    import pyarrow as pa

Status = Literal["passed", "failed", "errored"]


@dataclass(frozen=True)
class Judgement:
    """How one expectation came out on one partition; ``errored`` means it could not be evaluated, never a pass.

    ``unexpected_percent`` (0 to 100) is of the elements that are neither missing nor ignored, as Great Expectations
    counts it; None where there are none.
    """

    status: Status
    unexpected_count: int | None = None
    element_count: int | None = None
    unexpected_percent: float | None = None
    observed: Any = None
    error: str | None = None


@dataclass(frozen=True)
class Verdict:
    """A judgement with its partition and expectation.

    ``examples`` are up to ten of the rows that broke it, each with the key's and the judged columns' values.
    """

    partition: str
    expectation: Expectation
    status: Status
    unexpected_count: int | None
    element_count: int | None
    unexpected_percent: float | None
    observed: Any
    examples: tuple[dict[str, Any], ...]
    error: str | None


@dataclass(frozen=True)
class Evaluation:
    """Verdicts for every (partition, expectation) asked for, partitions in the order asked.

    ``broken`` has a row per row and row-level expectation it breaks, whether or not `mostly` lets the partition pass:
    ``partition`` string, ``row_id`` int64, ``expectation_id`` string, ``severity`` string.
    """

    verdicts: tuple[Verdict, ...]
    broken: "pa.Table"

    def of(self, partition: str) -> tuple[Verdict, ...]:
        """The verdicts of one partition; raises KeyError for one that was not evaluated."""
        return self._by_partition[partition]

    @cached_property
    def _by_partition(self) -> Mapping[str, tuple[Verdict, ...]]:
        found: dict[str, list[Verdict]] = {}
        for verdict in self.verdicts:
            found.setdefault(verdict.partition, []).append(verdict)
        return {partition: tuple(verdicts) for partition, verdicts in found.items()}


def jsonable(value: Any) -> Any:
    """A value as JSON can hold it: instants in ISO 8601, decimals as text, NaN as None."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(v) for v in value]
    if str(value) in ("NaT", "<NA>"):
        return None
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return jsonable(value.tolist())
    return value.hex() if isinstance(value, bytes) else str(value)
