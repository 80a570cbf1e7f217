"""Delta tables, read at one version: the newest when they are opened."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.declaration.places import is_remote
from pip_dagster.errors import SourceError
from pip_dagster.flow.origins.listing import listed, placed, reaching, trouble_of_table, written
from pip_dagster.flow.origins.opened import Opened, Opening
from pip_dagster.sql.names import literal
from pip_dagster.warehouse import s3
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.source import Source

EXTENSIONS = ("delta",)

# A commit, or a checkpoint of all commits up to one.
_VERSION = re.compile(r"^(\d{20})\.(?:json|checkpoint\.[\w.-]+)$")


def open_origin(at: Opening, name: str, source: Source) -> Opened:
    """Pin the newest version; everything within this opening reads that one.

    Raises:
        SourceError: there is no table, or it cannot be read.
    """
    where, table = at.where(name, source), placed(at.root, source.delta or "")
    s3.load_extension(at.con, "delta", where, SourceError)
    with reaching(at.con, table, where):
        version = _newest(at.con, table)
    if version is None:
        raise SourceError(
            f"{where} cannot be read: there is no Delta table in {source.delta}, since it has no _delta_log with a "
            "version. Write the table, or correct `delta`, which is the folder above _delta_log."
        )
    return Opened(f"delta_scan({literal(table)}, version = {version})", folders=frozenset({table}))


def identity(root: Path, source: Source) -> str | None:
    """The newest version and when it was written: a table that is created again begins with the same number."""
    table = placed(root, source.delta or "")
    with workspace(threads=1) as con, reaching(con, table, source.delta or ""):
        version = _newest(con, table)
        log = table if is_remote(table) else glob.escape(table)
        return None if version is None else written(con, f"{log}/_delta_log/{version:020}.*")


def trouble(error: BaseException) -> str:
    """What an error of DuckDB's means for its files."""
    return trouble_of_table(error)


def _newest(con: DuckDBPyConnection, table: str) -> int | None:
    names = (file.rpartition("/")[2] for file in listed(con, f"{table}/_delta_log", "*"))
    return max((int(found[1]) for each in names if (found := _VERSION.match(each))), default=None)
