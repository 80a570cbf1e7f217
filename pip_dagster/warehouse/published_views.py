"""The small database of views over the published files, which readers open."""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.sql.names import literal, parquet_rows, quote
from pip_dagster.warehouse import advisory, kinds

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def publish_views(con: DuckDBPyConnection, folder: Path) -> None:
    """Rebuild the database of views if the set of published tables, or their place, has changed."""
    if not folder.is_dir() or _views_show(folder, "\n".join(_view_statements(folder))):
        return
    with advisory.holding(con, [advisory.key_of("views")]) if advisory.is_shared(con) else nullcontext():
        _replace_views(folder, "\n".join(_view_statements(folder)))


def _views_show(folder: Path, script: str) -> bool:
    marker = folder / "views.sql"
    there = folder.with_suffix(".duckdb").is_file() and marker.is_file()
    return there and marker.read_text(encoding="utf-8") == script


def _replace_views(folder: Path, script: str) -> None:
    import duckdb

    database, marker = folder.with_suffix(".duckdb"), folder / "views.sql"
    temporary = database.with_name(f".{database.name}.{secrets.token_hex(4)}.tmp")
    con = duckdb.connect(":memory:")
    try:
        con.execute(f"ATTACH {literal(str(temporary))} AS published (STORAGE_VERSION 'v1.5.0')")
        con.execute("USE published")
        con.execute(script)
        con.execute("USE memory; DETACH published")
    finally:
        con.close()
    # A reader that has the old file open keeps reading it; its views show the same Parquet files.
    temporary.replace(database)
    marker.write_text(script, encoding="utf-8")


def _view_statements(folder: Path) -> Iterable[str]:
    pipelines = sorted(path.name for path in folder.iterdir() if path.is_dir())
    for kind in kinds.published():
        globs: dict[str, list[str]] = {}
        for pipeline in pipelines:
            files = folder / pipeline / (kind.folder or kind.name)
            if _has_parquet(files):
                globs.setdefault(kind.schema or pipeline, []).append(_all_in(files))
        for schema, listed in globs.items():
            yield f"CREATE SCHEMA IF NOT EXISTS {quote(schema)};"
            view = f"{quote(schema)}.{quote(kind.view or kind.name)}"
            yield f"CREATE VIEW {view} AS SELECT * FROM {parquet_rows(listed)};"


def _has_parquet(folder: Path) -> bool:
    """Whether there is any. It stops at the first: a folder has a file for each partition."""
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.endswith(".parquet") for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _all_in(folder: Path) -> str:
    """A glob of the folder's Parquet files, with brackets and stars in the project's own path escaped."""
    return f"{glob.escape(str(folder))}/*.parquet"
