"""What an evaluation returns: a verdict per partition and expectation, and the rows that broke an expectation."""

from __future__ import annotations

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
    """The result of one expectation on one partition; `errored` means that it could not be evaluated.

    `unexpected_percent` (0 to 100) is relative to the elements that are neither missing nor ignored, as Great
    Expectations counts it; None if there are none.
    """

    status: Status
    unexpected_count: int | None = None
    element_count: int | None = None
    unexpected_percent: float | None = None
    observed: Any = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict(Judgement):
    """A judgement with its partition and expectation.

    `examples` are up to ten of the rows that broke it, each with the key's and the judged columns' values.
    """

    partition: str
    expectation: Expectation
    examples: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Evaluation:
    """Verdicts for every requested partition and expectation, in the requested order.

    `broken` has a row for each row and row-level expectation that it breaks, even if the partition passes by `mostly`:
    `partition` string, `row_id` int64, `expectation_id` string, `severity` string.
    """

    verdicts: tuple[Verdict, ...]
    broken: pa.Table

    def of(self, partition: str) -> tuple[Verdict, ...]:
        """The verdicts of one partition.

        Raises:
            KeyError: the partition was not evaluated.
        """
        return self._by_partition[partition]

    @cached_property
    def _by_partition(self) -> Mapping[str, tuple[Verdict, ...]]:
        found: dict[str, list[Verdict]] = {}
        for verdict in self.verdicts:
            found.setdefault(verdict.partition, []).append(verdict)
        return {partition: tuple(verdicts) for partition, verdicts in found.items()}


def jsonable(value: Any) -> Any:
    """A JSON-compatible value: instants in ISO 8601, decimals as text, NaN as None."""
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
