"""Errors of disks, reported so that a user can fix them: full, not writable, a folder gone, a damaged file."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pip_dagster.errors import PipelineError, SpillError, StorageError, WarehouseError

# DuckDB passes the system's error on as text; the limits of its spill folder are its own.
_CODES = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO),
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EMFILE, errno.ENFILE),
)
_WORDS = (
    *("No space left on device", "Disk quota exceeded", "File too large", "Read-only file system"),
    *("Input/output error", "Permission denied", "Operation not permitted"),
    *("Not a directory", "No such file or directory", "Is a directory", "Too many open files"),
)
# How a spill folder's name begins.
SPILL = "pip_dagster_spill_"
_SPILLS = ("max_temp_directory_size", "duckdb_temp_storage", "duckdb_temp_block")

_DAMAGE = ("Corrupt database file", "not a valid DuckDB", "Could not read enough bytes", "Failed to load metadata")

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


def remedy(text: str) -> str:
    """What to do about the system's error in `text`."""
    if "ermission denied" in text or "not permitted" in text:
        return (
            f"User {os.geteuid()} may not do that: run it as a user who may, or change the owner or mode of the file."
        )
    if "Read-only file system" in text:
        return "The disk is mounted read-only: mount it for writing, or name another place in pyproject.toml."
    if any(words in text for words in _WORDS[:3]):
        return "Free space on its disk, and run again."
    if "Too many open files" in text:
        return "Raise the limit with `ulimit -n`, and run again."
    return "Check that the disk is there and that the settings in pyproject.toml name the right place."


def check_writable(*paths: Path) -> None:
    """Check, before anything is changed, that this user may write these files and folders, or create them.

    Raises:
        StorageError: names the first that may not be written, and what to do.
    """
    for path in paths:
        there = next(each for each in (path, *path.parents) if os.access(each, os.F_OK))
        if not os.access(there, os.W_OK | (os.X_OK if there.is_dir() else 0)):
            raise StorageError(f"{there} cannot be written. {remedy('Permission denied')} Nothing was changed.")


@contextmanager
def of_files(what: str, error: type[PipelineError]) -> Iterator[None]:
    """Report an error of the disk as one of this type, about `what`, such as "The registry /data/registry".

    Raises:
        PipelineError: of the type `error`.
    """
    try:
        yield
    except OSError as found:
        if (text := _system_text(found)) is None:
            raise
        raise error(f"{what} cannot be written: {text}. {remedy(text)} Nothing was changed.") from found


@contextmanager
def of_warehouse(path: Path) -> Iterator[None]:
    """Report an error of this warehouse file or its disk as one that names the file.

    Raises:
        StorageError: the file or what lies beside it could not be written or read.
        WarehouseError: the file is damaged.
    """
    try:
        yield
    except Exception as error:
        # On opening, the disk's error is the cause of one about the file's format.
        causes = [cause for cause in (error, error.__cause__, error.__cause__ and error.__cause__.__cause__) if cause]
        texts = (_system_text(cause) for cause in causes)
        found = next((text for text in texts if text and str(path) in text), None)
        if found is not None:
            raise StorageError(
                f"The warehouse {path} cannot be used: {found}\n{remedy(found)} Nothing is lost: {_KEPT}"
            ) from error
        if damage := next((str(cause) for cause in causes if is_damage(str(cause), path)), None):
            raise WarehouseError(
                f"The warehouse {path} is damaged: {damage.splitlines()[0]}\nRestore it from the newest backup. "
                "Nothing was changed; the published files and the registry are not affected."
            ) from error
        raise


def is_damage(text: str, path: Path) -> bool:
    """Whether DuckDB reports damage, and not of another file."""
    return any(words in text for words in _DAMAGE) and (str(path) in text or "/" not in text)


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
