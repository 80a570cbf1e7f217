"""The registry's errors, under one base so that a caller can catch them all."""

# ruff: noqa: N818 - these names are the project's vocabulary; the base class says that they are errors

from pip_dagster.errors import RegistryError


class ModelNotFound(RegistryError):
    """No such model, version or alias. The message lists those that exist."""


class DigestMismatch(RegistryError):
    """A file's bytes are not the ones that were registered."""

    def __init__(self, subject: str, file: str, expected: str, found: str) -> None:
        self.file = file
        self.expected = expected
        self.found = found
        super().__init__(
            f"{subject}: {file} has sha256 {found}, but {expected} was registered: the file has changed since and was "
            "not used. Restore the version's folder from a backup, or register the model again as a new version."
        )


class ReplacedVersion(RegistryError):
    """A version that is whole, but not the one that the ledger knows by its number."""


class LostMove(RegistryError):
    """An alias whose history lacks the move that the audit recorded last."""


class CorruptRegistry(RegistryError):
    """A manifest or alias file that cannot be read."""


class RegistryBusy(RegistryError):
    """Another process held the model's lock until the deadline."""


class RegistryUnwritable(RegistryError):
    """The registry's disk is full, or this user may not write there; nothing was changed."""


class UnsafeModelFile(RegistryError):
    """A file that is not a model in an engine's own format: pickles and archives are refused unopened."""


class InvalidModel(RegistryError):
    """The engine could not load or score the file, or must not (a newer version wrote it)."""


class InvalidSample(RegistryError):
    """The sample of training features cannot be read, is empty, or has no row that can be scored."""


class SignatureMismatch(RegistryError):
    """Model, sample, category lists or classes contradict each other, or a score would mean something else."""


class AliasConflict(RegistryError):
    """The alias did not point where the caller expected (compare-and-swap)."""


class MixedRegistry(RegistryError):
    """A model whose versions would come from MLflow and from here."""


class RegistryUnreachable(RegistryError):
    """MLflow is not installed, not configured, or does not answer."""


class InvalidKey(RegistryError):
    """A file or text that is not an Ed25519 key, or would overwrite one."""


class SignatureMissing(RegistryError):
    """A required signer has not signed this version, or signed other bytes."""


class PromotionRefused(RegistryError):
    """A candidate that did not pass the gates, or that a second person has not approved."""
