"""One registered version: an immutable folder, and the only way to its bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from pip_dagster.registry.engines import completed
from pip_dagster.registry.errors import CorruptRegistry, DigestMismatch, SignatureMismatch
from pip_dagster.registry.files import sha256
from pip_dagster.registry.manifest import FORMAT, Manifest
from pip_dagster.registry.reissue import GOLDEN_FILE, GoldenFiles

__all__ = ["DIGEST_FILE", "GOLDEN_FILE", "MANIFEST_FILE", "ModelVersion", "model_digest"]

MANIFEST_FILE = "manifest.json"
DIGEST_FILE = "manifest.sha256"


@dataclass(frozen=True)
class ModelVersion:
    """A registered version.

    `manifest_digest` is the sha256 of manifest.json's bytes, `digest` that of the model's.
    `created` is False when `Registry.register` found the same model registered already.
    """

    name: str
    version: int
    path: Path
    manifest: Manifest
    manifest_digest: str
    created: bool = field(default=False, compare=False)

    @classmethod
    def read(cls, name: str, version: int, path: Path, *, created: bool = False) -> ModelVersion:
        """Read a version's manifest.

        Raises:
            CorruptRegistry: manifest.json cannot be read.
            DigestMismatch: manifest.json is not the registered one.
        """
        data, digest = _checked_manifest(f"{name} v{version}", path)
        try:
            manifest = Manifest.model_validate_json(data, context={"complete": completed})
        except (ValidationError, SignatureMismatch) as error:
            first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise CorruptRegistry(
                f"{name} v{version}: {path / MANIFEST_FILE} is not a manifest of format {FORMAT} ({first}); a newer "
                "pip-dagster may have written it: upgrade this one"
            ) from error
        if (manifest.model_name, manifest.version) != (name, version):
            raise CorruptRegistry(
                f"{path} holds {manifest.model_name} v{manifest.version}, not {name} v{version}: the folder was moved "
                "or copied by hand; move it back, or register the model under this name"
            )
        return cls(name, version, path, manifest, digest, created)

    @property
    def digest(self) -> str:
        """The sha256 of the model, see `model_digest`."""
        return model_digest(self.manifest)

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"

    def file_bytes(self, file: str) -> bytes:
        """A registered file's bytes, read once and verified; golden rows as erasures left them.

        Raises:
            CorruptRegistry: the file is missing or was not registered.
            DigestMismatch: the bytes are not the registered ones.
        """
        expected = self.manifest.files.get(file)
        if expected is None:
            raise CorruptRegistry(f"{self}: no file {file} is registered; there are {sorted(self.manifest.files)}")
        path = self.path / file
        if file == GOLDEN_FILE:
            path, expected = self.golden_files.current
            if not path.is_file():  # an erasure replaced them meanwhile
                path, expected = self.golden_files.current
        data = _read(str(self), path)
        found = sha256(data)
        if found != expected:
            raise DigestMismatch(str(self), file, expected, found)
        return data

    @property
    def golden_files(self) -> GoldenFiles:
        """Where its golden rows are."""
        return GoldenFiles(self.path.parents[1], self.version, self.manifest.files.get(GOLDEN_FILE, ""))

    def model_bytes(self) -> bytes:
        """The model's bytes, verified before anything can load them. Raises as `file_bytes`."""
        return self.file_bytes(self.manifest.model_file)

    def verify(self) -> None:
        """Check the manifest and every file against their digests. Raises as `file_bytes`."""
        _, digest = _checked_manifest(str(self), self.path)
        if digest != self.manifest_digest:
            raise DigestMismatch(str(self), MANIFEST_FILE, self.manifest_digest, digest)
        for file in self.manifest.files:
            self.file_bytes(file)


def model_digest(manifest: Manifest) -> str:
    """The sha256 of the model file; of a composite, what `sha256sum member-* | sha256sum` prints in its folder."""
    files, composite = manifest.files, manifest.composite
    if composite is None:
        return files[manifest.model_file]
    names = sorted(member.file for member in composite.members)
    return sha256("".join(f"{files[name]}  {name}\n" for name in names).encode())


def _checked_manifest(subject: str, path: Path) -> tuple[bytes, str]:
    data = _read(subject, path / MANIFEST_FILE)
    recorded = _read(subject, path / DIGEST_FILE).decode(errors="replace").split()
    expected, digest = (recorded[0] if recorded else "nothing"), sha256(data)
    if digest != expected:
        raise DigestMismatch(subject, MANIFEST_FILE, expected, digest)
    return data, digest


def _read(subject: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptRegistry(
            f"{subject}: cannot read {path} ({error.strerror}); restore the version's folder from a backup, or "
            "register the model again"
        ) from error
