"""Writing a report: whole or not at all."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from pathlib import Path

from pip_dagster.errors import StorageError
from pip_dagster.warehouse.faults import remedy


def digest(data: bytes) -> str:
    """The sha256 by which a report is recorded."""
    return hashlib.sha256(data).hexdigest()


def write(path: Path, data: bytes) -> Path:
    """Replace a file; readers see the old or the new one. Its absolute path.

    Raises:
        StorageError: the file cannot be written.
    """
    path = path.absolute()
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        raise StorageError(f"The report cannot be written to {path}: {error}. {remedy(str(error))}") from error
    return path
