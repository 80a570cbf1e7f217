"""What produced a partition, as published: every attempt at it, and the live scoring."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from pip_dagster.api.published import rows_of
from pip_dagster.api.shown import Shown, ShownTable
from pip_dagster.errors import NotFoundError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_JSON_COLUMNS = ("source_digests", "engine", "findings", "declared_parts", "declared_row")
_SHOWN = (
    *("status", "reason", "model_name", "model_version", "model_digest", "manifest_digest", "feature_revision"),
    *("feature_digest", "code_digest", "device", "rows_in", "rows_scored", "rows_quarantined", "mean_score"),
    *("score_digest", "run_id", "made_by", "made_at"),
)


def lineage_entries(con: DuckDBPyConnection, pipeline: str, partition: str) -> list[dict[str, Any]]:
    """Every attempt at a partition as `ledger.partitions` has it, oldest first, JSON columns read; `con` reads it.

    Raises:
        NotFoundError: there is no such partition.
    """
    wanted = {"pipeline": pipeline, "partition": partition}
    select = "SELECT * FROM ledger.partitions WHERE pipeline = $pipeline"
    entries = rows_of(con, f"{select} AND partition_key = $partition ORDER BY scoring_id", wanted)
    if not entries:
        ends = (
            "SELECT arg_min(partition_key, partition_start) AS first, arg_max(partition_key, partition_start) AS last "
            "FROM ledger.partitions"
        )
        near = rows_of(con, f"{ends} WHERE pipeline = $pipeline", {"pipeline": pipeline})[0]
        if near["first"] is None:
            raise NotFoundError(f"No partition of a pipeline {pipeline!r} is published.", name=pipeline)
        raise NotFoundError(
            f"{pipeline} has no partition {partition!r}; the ledger has {near['first']} to {near['last']}.",
            name=partition,
            known=(near["first"], near["last"]),
        )
    for entry in entries:
        for column in _JSON_COLUMNS:
            entry[column] = json.loads(entry[column]) if entry[column] else {}
    return entries


@dataclass(frozen=True, repr=False)
class PartitionLineage(Shown, Sequence[dict[str, Any]]):
    """The attempts at a partition, oldest first; each is a dictionary with the columns of `ledger.partitions`.

    Attributes:
        pipeline: its name.
        partition: its key.
        entries: the attempts.
    """

    pipeline: str
    partition: str
    entries: tuple[dict[str, Any], ...]

    @property
    def live(self) -> dict[str, Any] | None:
        """The scoring that readers see; None where none is live."""
        return next((entry for entry in self.entries if entry["is_live"]), None)

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[dict[str, Any], ...]: ...
    def __getitem__(self, at: int | slice) -> dict[str, Any] | tuple[dict[str, Any], ...]:
        """One attempt, or some."""
        return self.entries[at]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def _table(self) -> ShownTable:
        shown = self.live or self.entries[-1]
        state = "the live scoring" if self.live else "the last attempt; none is live"
        rows: list[tuple[str, object]] = [(name, shown.get(name)) for name in _SHOWN if shown.get(name) is not None]
        rows += [(f"source {name}", of.get("digest")) for name, of in shown["source_digests"].items()]
        rows += [("libraries", ", ".join(f"{name} {of}" for name, of in shown["engine"].items()))]
        attempts = f", {len(self.entries)} attempts" if len(self.entries) > 1 else ""
        title = f"{self.pipeline}, partition {self.partition}: {state}{attempts}"
        return ShownTable(title, ("what", "value"), rows)
