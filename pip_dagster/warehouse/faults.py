"""Errors of disks, reported so that a user can fix them: full, over quota, read-only, a folder gone."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pip_dagster.errors import PipelineError, SpillError, StorageError

# DuckDB passes the system's error on as text; the limits of its spill folder are its own.
_CODES = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO),
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR),
)
_WORDS = (
    *("No space left on device", "Disk quota exceeded", "File too large", "Read-only file system"),
    *("Input/output error", "Permission denied", "Not a directory", "No such file or directory"),
)
# How a spill folder's name begins.
SPILL = "pip_dagster_spill_"
_SPILLS = ("max_temp_directory_size", "duckdb_temp_storage", "duckdb_temp_block")

_KEPT = "committed partitions are kept, all others are unchanged."


def _system_text(error: BaseException) -> str | None:
    """The system's text, if the error is about a file or disk; without DuckDB's advice to authors of SQL."""
    import duckdb

    if isinstance(error, OSError) and not isinstance(error, duckdb.Error):
        return str(error) if error.errno in _CODES else None
    if not isinstance(error, duckdb.Error):
        return None
    if not any(text in str(error) for text in (*_WORDS, *_SPILLS)):
        return None
    return re.split(r"\n\n|\nThis limit was set|\. Detail: Python exception", str(error))[0]


def is_of_spill(error: BaseException) -> bool:
    """Whether an error is about a folder that `workspace` spills to."""
    return any(text in str(error) for text in (*_SPILLS, SPILL))


def _is_of(error: BaseException, folder: Path) -> bool:
    return str(folder) in str(error) or any(text in str(error) for text in _SPILLS)


@contextmanager
def of_warehouse(path: Path) -> Iterator[None]:
    """Report an error of this warehouse file's disk as one that names the file.

    Raises:
        StorageError: the file or what lies beside it could not be written or read.
    """
    try:
        yield
    except Exception as error:
        # On opening, the disk's error is the cause of one about the file's format.
        causes = (error, error.__cause__, error.__cause__ and error.__cause__.__cause__)
        texts = (_system_text(cause) for cause in causes if cause)
        found = next((text for text in texts if text and str(path) in text), None)
        if found is None:
            raise
        raise StorageError(
            f"The warehouse {path} cannot be written: {found}\n"
            f"Free space on its disk, or make it writable, and run again: {_KEPT}"
        ) from error


@contextmanager
def of_spill(folder: Path) -> Iterator[None]:
    """Report an error of the spill folder, which holds data that exceeds memory, as one that names it.

    Raises:
        SpillError: it is full, gone, or cannot be written.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        if (found := _system_text(error)) is None or not _is_of(error, folder):
            raise
        raise SpillError(
            f"The spill folder {folder}, for data that exceeds memory, cannot be used: {found}\n"
            "Free space there, set TMPDIR to a disk with space, or allow more memory with PIP_DAGSTER_MEMORY_LIMIT "
            f"(such as 8GB). Then run again: {_KEPT}"
        ) from error


@contextmanager
def in_pipeline(pipeline: str, keys: list[str]) -> Iterator[None]:
    """Begin each error that a user can fix with its pipeline and partitions; the type stays."""
    try:
        yield
    except PipelineError as error:
        text = str(error)
        if not text.startswith(f"Pipeline {pipeline}"):
            of = keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}" if keys else "no partition"
            error.args = (f"Pipeline {pipeline}, {of}: {text}",)
        raise
