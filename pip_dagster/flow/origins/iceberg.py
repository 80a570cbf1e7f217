"""Iceberg tables, read at one state: a metadata file, which never changes."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.declaration.places import is_remote
from pip_dagster.errors import SourceError
from pip_dagster.flow.origins.listing import listed, placed, reaching, trouble_of_table, written
from pip_dagster.flow.origins.opened import Opened, Opening
from pip_dagster.quoted import first
from pip_dagster.sql.names import literal
from pip_dagster.warehouse import s3
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.source import Source

EXTENSIONS = ("avro", "iceberg")  # in this order: the second fails without the first

_METADATA = ".metadata.json"
# `v3.metadata.json`, `00003-<uuid>.metadata.json`; Java's tables may be compressed, `v3.gz.metadata.json`.
_NUMBER = re.compile(r"^v?(\d+)(?:-[0-9a-fA-F-]+)?(?:\.gz)?\.metadata\.json$")


def open_origin(at: Opening, name: str, source: Source) -> Opened:
    """Pin the newest metadata file, or the declared one; everything within this opening reads it.

    Raises:
        SourceError: there is no table, two files claim to be the newest, or it cannot be read.
    """
    where, table = at.where(name, source), placed(at.root, source.iceberg or "")
    for extension in EXTENSIONS:
        s3.load_extension(at.con, extension, where, SourceError)
    with reaching(at.con, table, where):
        metadata = _newest(at.con, table, where)
        location = _location(at.con, metadata, where)
    folders = {table.rpartition("/metadata/")[0] or table.rpartition("/")[0] if table.endswith(_METADATA) else table}
    return Opened(f"iceberg_scan({literal(metadata)})", folders=frozenset(folders | {location}))


def identity(root: Path, source: Source) -> str | None:
    """The newest metadata file and when it was written: a table that is created again may give it the same name."""
    declared = source.iceberg or ""
    with workspace(threads=1) as con, reaching(con, placed(root, declared), declared):
        metadata = _newest(con, placed(root, declared), declared)
        return written(con, metadata if is_remote(metadata) else glob.escape(metadata))


def trouble(error: BaseException) -> str:
    """What an error of DuckDB's means for its files."""
    return trouble_of_table(error)


def _newest(con: DuckDBPyConnection, table: str, where: str) -> str:
    """The metadata file of the highest number: each commit writes the next one."""
    if table.endswith(_METADATA):
        return table
    numbered: dict[int, list[str]] = {}
    for file in listed(con, f"{table}/metadata", f"*{_METADATA}"):
        if found := _NUMBER.match(file.rpartition("/")[2]):
            numbered.setdefault(int(found[1]), []).append(file)
    if not numbered:
        raise SourceError(
            f"{where} cannot be read: there is no Iceberg table in {table}, since its folder metadata has no "
            f"*{_METADATA}. Write the table, or correct `iceberg`, which is the table's folder or such a file."
        )
    newest = numbered[max(numbered)]
    if len(newest) > 1:
        raise SourceError(
            f"{where} cannot be read: {' and '.join(sorted(newest))} have the same number, and only the catalog knows "
            "which of them was committed. Delete the other one, or declare the file that the catalog names."
        )
    return newest[0]


def _location(con: DuckDBPyConnection, metadata: str, where: str) -> str:
    """The folder of the table as its metadata has it, which its data files are below."""
    import duckdb

    options = "columns = {location: 'VARCHAR'}"
    options += ", compression = 'gzip'" if ".gz." in metadata.rpartition("/")[2] else ""
    try:
        row = con.execute(f"SELECT location FROM read_json({literal(metadata)}, {options})")
        (location,) = row.fetchone() or (None,)
    except duckdb.Error as error:
        if "No files found" not in str(error) and "JSON" not in str(error):
            raise
        raise SourceError(
            f"{where} cannot be read: {metadata} is not the metadata of an Iceberg table. Correct `iceberg`, or "
            f"restore the file. DuckDB says: {first(error)}"
        ) from error
    return str(location or metadata.rpartition("/metadata/")[0]).removeprefix("file://").rstrip("/")
