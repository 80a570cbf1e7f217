"""What a file is that DuckDB cannot attach, and what to do about it."""

from __future__ import annotations

import re
from pathlib import Path

_HEAD = 4096
# DuckDB's header: a checksum, these bytes, the format's number and flags, and from here the version that wrote it.
_DUCKDB, _WRITTEN_BY, _WRITTEN_BY_LENGTH = b"DUCK", 52, 32
_TO_PARQUET = "write the table to Parquet and declare `parquet`, or copy it to a DuckDB file"
_FORMATS = {
    b"SQLite format 3\0": f"is an SQLite file: {_TO_PARQUET}",
    b"PAR1": "is a Parquet file: declare it with `parquet` instead of a database",
    b"\x1f\x8b": f"is compressed with gzip: decompress it, or {_TO_PARQUET}",
    b"PK\x03\x04": f"is a ZIP archive or a spreadsheet: {_TO_PARQUET}",
}
_NUMBERS = re.compile(r"version number (\d+), but we can only read (?:storage )?versions between \d+ and (\d+)")
_DAMAGED = ("Could not read enough bytes", "checksum", "Corrupt", "Failed to deserialize", "Serialization Error")


def why_unreadable(path: Path, error: BaseException) -> str:
    """Why DuckDB cannot attach a file, with the remedy: a sentence that goes on from the file's name."""
    text = str(error)
    first = text.splitlines()[0] if text else type(error).__name__
    try:
        if path.is_dir():
            return "is a directory: name the DuckDB file in it, or declare its Parquet files with `parquet`"
        if not path.is_file():
            return "is no file: correct the path in the declaration"
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as failed:
        return f"cannot be read ({failed.strerror}): give the user of this process the right to read it"
    if not head:
        return "is empty, and no DuckDB file: run what writes it, or correct the path in the declaration"
    if found := next((what for start, what in _FORMATS.items() if head.startswith(start)), None):
        return found
    if head[8:12] != _DUCKDB:
        what = "is text, such as CSV or JSON" if _is_text(head) else "is not a DuckDB file"
        return f"{what}: {_TO_PARQUET}"
    return _of_duckdb(path, head, text) or f"cannot be opened as a DuckDB file: {first}"


def is_of_file(error: Exception) -> bool:
    """Whether DuckDB could not read a file; DuckDB 2 has no class of its own for one that is damaged."""
    import duckdb

    return isinstance(error, duckdb.IOException) or any(sign in str(error) for sign in _DAMAGED)


def _of_duckdb(path: Path, head: bytes, text: str) -> str | None:
    if numbers := _NUMBERS.search(text):
        return _of_version(head, text, newer=int(numbers[1]) > int(numbers[2]))
    if "encrypted" in text:
        return (
            "is encrypted, and a declaration has no key: have its writer copy the tables to a file without encryption"
        )
    if any(sign in text for sign in _DAMAGED):
        return "is truncated or damaged: restore it from a backup, or run what writes it again"
    if Path(f"{path}.wal").exists():
        return (
            f"cannot be opened together with {path.name}.wal, which its writer left behind: open it once with its "
            f"writer's DuckDB and run CHECKPOINT ({text.splitlines()[0]})"
        )
    return None


def _of_version(head: bytes, text: str, *, newer: bool) -> str:
    import duckdb

    this = f"which DuckDB v{duckdb.__version__} does not read"
    if not newer:
        known = re.search(r"created with DuckDB version (.+?)\.?$", text, re.MULTILINE)
        wrote = known[1] if known else "of an older version"
        return (
            f"was written by DuckDB {wrote}, in a format {this}: run EXPORT DATABASE with that version, and IMPORT "
            "DATABASE with this one"
        )
    wrote = head[_WRITTEN_BY : _WRITTEN_BY + _WRITTEN_BY_LENGTH].split(b"\0")[0].decode("ascii", "replace")
    return (
        f"was written by DuckDB {wrote or 'of a newer version'} in a format {this}: have its writer create it by "
        "`ATTACH '…' (STORAGE_VERSION 'v1.5.0')`, which both read, and copy an existing one to such a file by "
        "`COPY FROM DATABASE … TO …`; or install a DuckDB of that version, where no lake is used"
    )


def _is_text(head: bytes) -> bool:
    """Whether it is UTF-8 without zero bytes; its last character may be cut off."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return b"\0" not in head and error.start >= len(head) - 3
    return b"\0" not in head
