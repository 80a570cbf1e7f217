"""The errors a user can mend: each says what was found, what was expected and what to do."""


class PipelineError(Exception):
    """Base of every error that this package raises on purpose."""


class ProjectError(PipelineError):
    """The project folder or its settings cannot be used."""


class DeclarationError(PipelineError):
    """A pipeline's declaration, SQL or model does not fit together; no partition can be made."""


class SourceError(PipelineError):
    """A source table is missing, unreadable or locked."""


class WarehouseError(PipelineError):
    """The warehouse cannot be opened, is locked, or is of another version."""


class SourceLockedError(SourceError):
    """Another process holds a source's file; later it will not."""


class WarehouseLockedError(WarehouseError):
    """Another process holds the warehouse; later it will not."""


class StorageError(WarehouseError):
    """The warehouse's disk is full or cannot be written; what was committed is kept."""


class SpillError(PipelineError):
    """The folder for what outgrows memory is full, gone or cannot be written."""


class NoWarehouseError(WarehouseError):
    """There is no warehouse to read yet."""


class PartitionError(PipelineError):
    """One partition cannot be made; its neighbours can."""


class WithdrawnError(PartitionError):
    """A person rolled back what would now be made live, since it was asked for; nothing of it is stored.

    `what` was rolled back, by whom and why.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}, since this run was asked for, which would undo that. To make it all the same launch a new run"
        )


class RollbackError(PipelineError):
    """A rollback that cannot be meant, or could mean two things; nothing was changed."""


class BackfillError(PipelineError):
    """A backfill that cannot be begun or gone on with as it was asked for."""


class OvertakenError(PipelineError):
    """Another process committed what this transaction did not know of; it is rolled back and may be done once more."""


class RegistryError(PipelineError):
    """Base of every error here. The message names the model, version or file, what was expected and what to do."""


class InvalidName(RegistryError):  # noqa: N818
    """A model name or alias that could not be a folder or file name, or that reads like something else."""
