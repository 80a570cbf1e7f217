"""Writing a report: whole or not at all."""

from __future__ import annotations

import hashlib
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
    path = path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except (OSError, ValueError) as error:
        raise StorageError(f"The report cannot be written to {path}: {error}. {remedy(str(error))}") from error
    return path
