"""The errors that a user can fix: each message says what happened, where, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class PipelineError(Exception):
    """Base of every error that this package raises on purpose.

    `answered`: the command that raises it has printed JSON that names it.
    """

    answered = False


class ProjectError(PipelineError):
    """The project folder or its settings cannot be used."""


class DeclarationError(PipelineError):
    """A pipeline's declaration, SQL or model is invalid or does not fit the others; no partition can be built."""


class InvalidDeclarationError(DeclarationError):
    """Attributes of a defs.yaml that its schema refuses: `problems`, each with the line it is on and a sentence."""

    def __init__(self, file: str, problems: list[tuple[int | None, str]]) -> None:
        super().__init__(f"{file}: " + "\n".join(text for _, text in problems))
        self.file = file
        self.problems = problems


class SourceError(PipelineError):
    """A source table is missing, unreadable or locked."""


class SourceAwayError(SourceError):
    """A source cannot be read at the moment, since its server does not answer or its file is locked; retry later."""


class WarehouseError(PipelineError):
    """The warehouse cannot be opened, is locked, or has another version."""


class SourceLockedError(SourceAwayError):
    """Another process has locked a source's file; retry later."""


class WarehouseLockedError(WarehouseError):
    """Another process has locked the warehouse; retry later."""


class StorageError(WarehouseError):
    """The warehouse's disk is full or not writable; committed data is safe."""


class ClusterError(PipelineError):
    """The Ray cluster cannot be reached, or its nodes cannot do the work."""


class SpillError(PipelineError):
    """The folder that DuckDB spills to is full, missing or not writable."""


class MemoryLimitError(PipelineError):
    """DuckDB ran out of the memory that it may have."""


class NoWarehouseError(WarehouseError):
    """There is no warehouse yet."""


class OlderWarehouseError(WarehouseError):
    """An earlier version wrote the warehouse, which the next command that writes migrates."""


class OtherWarehouseError(WarehouseError):
    """The warehouse was lost, replaced, or restored from a backup that is older than what was published from it.

    `reason` is the message without what to do about it.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason} {remedy}")
        self.reason = reason


class RestoredWarehouseError(WarehouseError):
    """The warehouse is from a backup of before an erasure, so it may hold people who were erased."""


class PartitionError(PipelineError):
    """One partition cannot be built; the others are not affected."""


class WithdrawnError(PartitionError):
    """A rollback newer than the run's request withdrew this partition; nothing of it is stored.

    Args:
        what: the partition, with the reason of the rollback and who requested it.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}, after this run was requested; the run would undo that. To build it anyway, launch a new run"
        )


class RollbackError(PipelineError):
    """The rollback request is invalid or ambiguous; nothing was changed."""


class BackfillError(PipelineError):
    """A backfill cannot be started or resumed as requested."""


class RangeError(PipelineError, ValueError):
    """A range of partitions is not valid, or not over yet.

    Attributes:
        pipeline: its name.
        given: the bound that is wrong.
    """

    def __init__(self, text: str, *, pipeline: str, given: object) -> None:
        super().__init__(text)
        self.pipeline = pipeline
        self.given = given


class TrainingSetError(PipelineError):
    """A training set cannot be built; nothing was written.

    Attributes:
        pipeline: its name.
        excluded: partition key → why it cannot be trained on, as far as that is known.
    """

    def __init__(self, text: str, *, pipeline: str, excluded: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.pipeline = pipeline
        self.excluded = dict(excluded or {})


class LeakError(TrainingSetError):
    """Features depend on rows that were not available when their partition closed, or after a row's cut-off.

    Attributes:
        partition: the key of the partition that shows it.
        features: the features that differ.
    """

    def __init__(self, text: str, *, pipeline: str, partition: str, features: Sequence[str]) -> None:
        super().__init__(text, pipeline=pipeline)
        self.partition = partition
        self.features = tuple(features)


class NotFoundError(PipelineError, LookupError):
    """What was named does not exist: a pipeline, a partition, a version.

    Attributes:
        name: what was named.
        known: what there is instead; of partitions the first and the last.
    """

    def __init__(self, text: str, *, name: str, known: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.name = name
        self.known = tuple(known)


class MissingPackageError(PipelineError, ImportError):
    """An optional package is not installed; the message has the command that installs it."""


class LineageError(PipelineError):
    """Events of lineage cannot be written or sent; they stay in the ledger and can be sent later."""


class ScaffoldError(PipelineError):
    """A new project or pipeline cannot be written, or nothing can be proposed from the table."""


class OvertakenError(PipelineError):
    """Another process committed a change that this transaction had not seen; it is rolled back and can be retried."""


class ErasureError(PipelineError):
    """Something that must be erased is still there, or cannot be erased now."""


class RegistryError(PipelineError):
    """Base of the errors about models: the message names the model, version or file."""


class InvalidName(RegistryError):  # noqa: N818
    """A model name or alias cannot be a folder or file name, or reads like something else."""
