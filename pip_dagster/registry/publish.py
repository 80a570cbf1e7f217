"""How a prepared folder becomes a version: completely, or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pip_dagster.registry.errors import CorruptRegistry, DigestMismatch, MixedRegistry
from pip_dagster.registry.files import locked, of_registry, sha256, sync_file, sync_folder, write_synced
from pip_dagster.registry.manifest import Manifest
from pip_dagster.registry.version import DIGEST_FILE, MANIFEST_FILE, ModelVersion, model_digest
from pip_dagster.warehouse.faults import remedy

# A registration takes seconds: a folder older than a day belongs to a process that died.
ABANDONED_SECONDS = 24 * 3600
_TO_LOCK_SECONDS = 5  # from the creation of its folder to its lock
_INCOMING = ".incoming-*"


def version_numbers(folder: Path) -> list[int]:
    """The versions of a model's folder, ascending."""
    return sorted(int(path.name) for path in (folder / "versions").glob("[1-9]*") if path.name.isdecimal())


def read_version(folder: Path, number: int) -> ModelVersion:
    """One version of a model's folder. Raises as `ModelVersion.read`."""
    return ModelVersion.read(folder.name, number, folder / "versions" / str(number))


def check_readable(*folders: Path) -> None:
    """Check that this user may list these folders, those that exist: a model there would seem not to exist.

    Raises:
        CorruptRegistry: names the folder, and what to do.
    """
    for folder in folders:
        if not os.access(folder, os.R_OK | os.X_OK) and os.access(folder, os.F_OK):
            raise CorruptRegistry(f"{folder} cannot be read. {remedy('Permission denied')}")


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A private folder on the same file system, gone afterwards unless it was published.

    Raises:
        RegistryUnwritable: the disk is full, or this user may not write there.
    """
    with of_registry(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(_INCOMING):
            with suppress(FileNotFoundError):  # its owner, or another cleaner, may be removing it now
                if time.time() - old.stat().st_mtime > ABANDONED_SECONDS:
                    shutil.rmtree(old, ignore_errors=True)
        path = folder / f".incoming-{secrets.token_hex(8)}"
        path.mkdir()
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_SH)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(handle)


def incoming(root: Path) -> list[Path]:
    """The folders of registrations of any model, with their samples: of running ones, and of those that died."""
    return sorted(root.glob(f"*/{_INCOMING}"))


def remove_abandoned(root: Path) -> list[Path]:
    """Remove those of registrations that died; the folders that may be of running ones."""
    for path in incoming(root):
        with suppress(OSError):  # gone, or a file system without locks
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if time.time() - path.stat().st_mtime > _TO_LOCK_SECONDS:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
            finally:
                os.close(handle)
    return incoming(root)


def publish(
    folder: Path,
    staged: Path,
    manifest: Callable[[int, dict[str, str]], Manifest],
    *,
    mirrored_as: int | None = None,
) -> ModelVersion:
    """Make the staged files, models and golden rows, the next version, unless the same model is registered already.

    `manifest` builds the manifest for a version number and the files' digests. The rename is the moment of
    publication; a number that another process took (a file system without locks) is retried with the next.
    `mirrored_as` is the number that a version has in MLflow and keeps here; if it is here already, it is returned.

    Raises:
        MixedRegistry: the model's other versions have another origin.
        RegistryBusy: another process holds the model's lock.
    """
    files = {}
    for path in sorted(each for each in staged.iterdir() if each.is_file()):
        file = path.name
        files[file] = sha256(path.read_bytes())
        sync_file(path)
        path.chmod(0o444)
    with locked(folder / ".lock"):
        versions = folder / "versions"
        versions.mkdir(exist_ok=True)
        numbers = version_numbers(folder)
        _refuse_mixed(folder, numbers, mirrored=mirrored_as is not None)
        if mirrored_as in numbers:
            return read_version(folder, mirrored_as)
        if mirrored_as is None and (same := _same_model(folder, numbers, manifest(1, files))):
            return same
        number = mirrored_as - 1 if mirrored_as is not None else numbers[-1] if numbers else 0
        while True:
            number += 1
            _write_manifest(staged, manifest(number, files))
            target = versions / str(number)
            try:
                staged.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if mirrored_as is not None:  # another machine mirrored it, on a file system without locks
                    return read_version(folder, mirrored_as)
                continue
            sync_folder(versions)
            sync_folder(folder)
            return ModelVersion.read(folder.name, number, target, created=True)


def _refuse_mixed(folder: Path, numbers: list[int], *, mirrored: bool) -> None:
    """Two sources of one model's version numbers would sooner or later use one number for two models."""
    for number in numbers:
        with suppress(DigestMismatch, CorruptRegistry):
            origin = read_version(folder, number).manifest.origin
            if mirrored and origin is None:
                raise MixedRegistry(
                    f"{folder.name}: {folder} holds versions that were registered here, so MLflow's cannot be mirrored "
                    "into it under their own numbers; give the model another name in MLflow"
                )
            if not mirrored and origin is not None:
                raise MixedRegistry(
                    f"{folder.name} is mirrored from MLflow (v{number} is {origin.uri}); register the version there, "
                    "or register this one under another name"
                )
            return


def _same_model(folder: Path, numbers: list[int], draft: Manifest) -> ModelVersion | None:
    for number in numbers:
        # A damaged version must neither prevent its replacement nor be returned in its place.
        with suppress(DigestMismatch, CorruptRegistry):
            earlier = read_version(folder, number)
            if earlier.digest == model_digest(draft) and earlier.manifest.scores_like(draft):
                if draft.training_check is not None and earlier.manifest.training_check is None:
                    continue  # the same model, now verified against training
                if draft.held_out not in (None, earlier.manifest.held_out):
                    continue  # the same model, now measured on these outcomes
                earlier.verify()
                return earlier
    return None


def _write_manifest(staged: Path, manifest: Manifest) -> None:
    data = manifest.model_dump_json(indent=2).encode()
    for file, content in ((MANIFEST_FILE, data), (DIGEST_FILE, f"{sha256(data)}  {MANIFEST_FILE}\n".encode())):
        (staged / file).unlink(missing_ok=True)
        write_synced(staged / file, content)
        (staged / file).chmod(0o444)
    sync_folder(staged)
