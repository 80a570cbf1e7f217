"""Writing a report: whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from pip_dagster.errors import StorageError
from pip_dagster.warehouse.faults import remedy
from pip_dagster.whole_file import replacing


def digest(data: bytes) -> str:
    """The sha256 by which a report is recorded."""
    return hashlib.sha256(data).hexdigest()


def write(path: Path, data: bytes) -> Path:
    """Replace a file; readers see the old or the new one. Its absolute path.

    Raises:
        StorageError: the file cannot be written.
    """
    return write_parts(path, [data])[0]


def write_parts(path: Path, parts: Iterable[bytes], *, mode: int = 0o666) -> tuple[Path, str, int]:
    """The same of a file that is not held whole in memory; its absolute path, sha256 and size.

    `mode`: who may do what with a new file, less what `umask` takes.

    Raises:
        StorageError: the file cannot be written.
    """
    path, sha256, size = path.absolute(), hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # By its opener: a device, which `replacing` gives as it is, keeps the rights that it has.
        with replacing(path) as temporary, open(temporary, "wb", opener=lambda at, how: os.open(at, how, mode)) as file:
            for part in parts:
                sha256.update(part)
                size += file.write(part)
    except (OSError, ValueError) as error:
        raise StorageError(f"The report cannot be written to {path}: {error}. {remedy(str(error))}") from error
    return path, sha256.hexdigest(), size
