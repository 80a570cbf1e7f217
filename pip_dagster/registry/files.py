"""Files that are replaced atomically, even if the process dies; and the lock around them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pip_dagster.registry.errors import RegistryBusy, RegistryUnwritable
from pip_dagster.warehouse.faults import of_files
from pip_dagster.warehouse.lock_file import open_lock

LOCK_SECONDS = 60.0


def sha256(data: bytes) -> str:
    """The hex digest of these bytes."""
    return hashlib.sha256(data).hexdigest()


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file whose bytes are on disk when this returns."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Force a file that other code wrote to disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Force a folder's entries to disk: a rename is durable only then."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_atomically(path: Path, data: bytes) -> None:
    """Replace a file's content: readers see the old or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        write_synced(temporary, data)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    sync_folder(path.parent)


@contextmanager
def of_registry(folder: Path) -> Iterator[None]:
    """Report an error of the disk that holds this folder of the registry as one that names the folder.

    Raises:
        RegistryUnwritable: the disk is full, or this user may not write there.
    """
    with of_files(f"The registry's folder {folder}", RegistryUnwritable):
        yield


@contextmanager
def locked(path: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Lock `path` exclusively; the kernel releases the lock if the process dies.

    Raises:
        RegistryBusy: another process holds it longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_lock(path)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RegistryBusy(
                        f"{path}: another process has held this lock for {seconds:g} s, though it needs milliseconds; "
                        "find the suspended pip-dagster process (`fuser`), then try again"
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)
