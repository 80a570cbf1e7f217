"""What a disk does to a run, said so that a user can mend it: full, over quota, read-only, a folder gone."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pip_dagster.errors import PipelineError, SpillError, StorageError

# DuckDB hands on what the system said, in words; of its own are the limits of its spill folder.
_CODES = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO),
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR),
)
_WORDS = (
    *("No space left on device", "Disk quota exceeded", "File too large", "Read-only file system"),
    *("Input/output error", "Permission denied", "Not a directory", "No such file or directory"),
)
_SPILLS = ("max_temp_directory_size", "duckdb_temp_storage", "duckdb_temp_block")

_KEPT = "every partition that was committed is kept, every other one is as it was."


def _said(error: BaseException) -> str | None:
    """What the system said, where it is about a file or disk; without DuckDB's advice to who writes SQL."""
    import duckdb

    if isinstance(error, OSError) and not isinstance(error, duckdb.Error):
        return str(error) if error.errno in _CODES else None
    if not isinstance(error, duckdb.Error):
        return None
    if not any(text in str(error) for text in (*_WORDS, *_SPILLS)):
        return None
    return re.split(r"\n\n|\nThis limit was set|\. Detail: Python exception", str(error))[0]


def _is_of(error: BaseException, folder: Path) -> bool:
    return str(folder) in str(error) or any(text in str(error) for text in _SPILLS)


@contextmanager
def of_warehouse(path: Path) -> Iterator[None]:
    """What the disk of this warehouse file does, as an error that names it.

    Raises:
        StorageError: the file or what lies beside it could not be written or read.

    """
    try:
        yield
    except Exception as error:
        # On opening, the cause of one that says that it is no DuckDB file.
        causes = (error, error.__cause__, error.__cause__ and error.__cause__.__cause__)
        said = next((text for cause in causes if cause and (text := _said(cause)) and str(path) in text), None)
        if said is None:
            raise
        raise StorageError(
            f"The warehouse {path} cannot be written: {said}\n"
            f"Free space on its disk, or make it writable, and run again: {_KEPT}"
        ) from error


@contextmanager
def of_spill(folder: Path) -> Iterator[None]:
    """What becomes of the folder that holds what outgrows memory, as an error that names it.

    Raises:
        SpillError: it is full, gone, or cannot be written.

    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        if (said := _said(error)) is None or not _is_of(error, folder):
            raise
        raise SpillError(
            f"The folder for what outgrows memory, {folder}, cannot be used: {said}\nFree space there, name a disk "
            "that has some as TMPDIR, or allow more memory with PIP_DAGSTER_MEMORY_LIMIT (such as 8GB), and run again: "
            f"{_KEPT}"
        ) from error


@contextmanager
def in_pipeline(pipeline: str, keys: list[str]) -> Iterator[None]:
    """Every error that a user can mend says of which pipeline and partitions it is; its type stays."""
    try:
        yield
    except PipelineError as error:
        text = str(error)
        if not text.startswith(f"Pipeline {pipeline}"):
            of = keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}" if keys else "no partition"
            error.args = (f"Pipeline {pipeline}, {of}: {text}",)
        raise
