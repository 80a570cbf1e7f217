"""The contract of a target: where the live rows of a partition are delivered to.

A change is delivered at least once. A target shows one change of a partition at a time, as a whole, and remembers
which: it skips the one that it shows, and refuses one that is older.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pip_dagster.errors import PipelineError

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from pip_dagster.declaration.pipeline import Pipeline


class DeliveryError(PipelineError):
    """A target did not take a change. `again`: whether another attempt soon may succeed, as after a lost connection."""

    def __init__(self, text: str, *, again: bool = False) -> None:
        super().__init__(text)
        self.again = again


def local_folder(pipeline: Pipeline, target: str, declared: str) -> Path:
    """The folder that a path of a declaration names.

    Raises:
        DeliveryError: it is in a folder of the project's own, from which files that are not its own are removed.
    """
    project = pipeline.project
    found = (project.root / declared).resolve()
    for own in (project.published, project.registry):
        if found.is_relative_to(own.resolve()):
            raise DeliveryError(
                f"Pipeline {pipeline.spec.name}: target {target} is {found}, in {own}, where the project keeps files "
                "of its own and removes others. Give it another folder"
            )
    return found


class NewerChangeError(DeliveryError):
    """The target shows a newer change of the partition than the one that is delivered."""


@dataclass(frozen=True)
class ShownChange:
    """What a target shows of a partition: a live change, as a declaration of the target selects its rows."""

    change_id: str
    declaration: str


@dataclass(frozen=True)
class DeliveryChange:
    """A live change of a partition, and what its rows are for one target.

    Attributes:
        target: The declared name of the target.
        start: When the partition begins; `end`: when it ends.
        change_id: The live change. A later one sorts behind an earlier one.
        scoring_ids: The live scorings: one, or those of the arms of a split.
        kind: Why it is live: `scored`, `pinned` or `rollback`.
        made_at: Since when it is live.
        declaration: The digest of the target's declaration: columns, filter and place.
        columns: The columns of the rows, in order, with their SQL types in DuckDB. `partition_key` is one of them.
        rows: How many there are; a partition without rows is delivered too.
        digest: Of the rows, as `digest_of` computes it.
        earlier: How often the target got the change before, or may have got it as it was declared otherwise. It is the
            same for a retry.
        force: Write it whatever the target shows: a person requested that.
    """

    pipeline: str
    target: str
    partition_key: str
    start: datetime
    end: datetime
    change_id: str
    scoring_ids: tuple[str, ...]
    kind: str
    made_at: datetime
    declaration: str
    columns: Mapping[str, str]
    rows: int
    digest: str
    force: bool = False
    earlier: int = 0

    def is_news(self, shown: ShownChange | None) -> bool:
        """Whether a target that shows this must write the change. It decides where nobody else can write meanwhile.

        Raises:
            NewerChangeError: it shows a newer change.
        """
        if shown is None or self.force or shown.change_id < self.change_id:
            return True
        if shown.change_id > self.change_id:
            raise NewerChangeError(
                f"Pipeline {self.pipeline}, partition {self.partition_key}: target {self.target} shows change "
                f"{shown.change_id}, which is newer than {self.change_id}, the one that is live. Was the warehouse "
                f"restored from a backup? `pip-dagster deliver {self.pipeline} {self.partition_key} --target "
                f"{self.target}` replaces it."
            )
        return shown.declaration != self.declaration


@dataclass(frozen=True)
class ChangeRows:
    """The rows of a change: a Parquet file of this process, which is removed after the delivery."""

    file: Path

    def reader(self) -> pa.RecordBatchReader:
        """The rows in Arrow batches, read as they are needed; each call begins at the first row."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        opened = pq.ParquetFile(self.file)
        return pa.RecordBatchReader.from_batches(opened.schema_arrow, opened.iter_batches())


@dataclass(frozen=True)
class Receipt:
    """What a target has of a partition.

    Attributes:
        place: Where it is, for people and for an erasure: no secret is in it.
        details: What else finds it there, such as the names of files; JSON.
        is_new: Whether this delivery has written it; else the target showed it already.
    """

    shown: ShownChange
    rows: int
    digest: str
    place: str
    details: Mapping[str, Any] = field(default_factory=dict)
    is_new: bool = True


class Target(Protocol):
    """One declared target of a pipeline, open for some deliveries by one thread.

    `kind` is its key in the declaration, such as `parquet`. `can_read_back` is False for one that cannot be read, such
    as a webhook.
    """

    kind: str
    can_read_back: bool

    def deliver(self, change: DeliveryChange, rows: ChangeRows) -> Receipt:
        """Replace what is shown of the change's partition by its rows, in one step that readers see whole.

        It calls `change.is_news`, and writes nothing where that is False.

        Raises:
            NewerChangeError: a newer change is there.
            DeliveryError: the target is away, or refuses the rows. What it shows is as before, or the new change.
        """

    def read_back(self, partition_key: str, columns: Mapping[str, str]) -> Receipt | None:
        """What the target shows of a partition: its rows, read and counted there, as these SQL types.

        None if it shows nothing of it, or cannot be read back.

        Raises:
            DeliveryError: it is away.
        """

    def close(self) -> None:
        """Release what it has open, and remove what no reader needs any more."""


@runtime_checkable
class Sweeping(Protocol):
    """A target that keeps former rows for a while, for those who have begun to read them."""

    def sweep(self) -> None:
        """Remove them now. No other process may deliver to it meanwhile.

        Raises:
            DeliveryError: they cannot be removed.
        """
