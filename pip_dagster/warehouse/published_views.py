"""The small database of views over the published files, which readers open."""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse import advisory

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def publish_views(con: DuckDBPyConnection, folder: Path) -> None:
    """Make the database of views anew where the set of published tables, or their place, has changed."""
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
    # Whoever has the old file open keeps reading it; its views show the same Parquet files.
    temporary.replace(database)
    marker.write_text(script, encoding="utf-8")


def _view_statements(folder: Path) -> Iterable[str]:
    of_all: dict[str, list[str]] = {"ledger": [], "checks": [], "arms": []}
    for pipeline in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        for kind in ("predictions", "quarantine", "reasons", "ledger", "checks", "arms"):
            files = folder / pipeline / kind
            if not _has_parquet(files):
                continue
            if kind in of_all:
                of_all[kind].append(_all_in(files))
                continue
            yield f"CREATE SCHEMA IF NOT EXISTS {quote(pipeline)};"
            yield f"CREATE VIEW {quote(pipeline)}.{kind} AS {_read([_all_in(files)])};"
    if of_all["ledger"]:
        yield "CREATE SCHEMA ledger;"
        yield f"CREATE VIEW ledger.partitions AS {_read(of_all['ledger'])};"
    for kind in ("checks", "arms"):
        if of_all[kind]:
            yield f"CREATE VIEW ledger.{kind} AS {_read(of_all[kind])};"


def _has_parquet(folder: Path) -> bool:
    """Whether there is any; it looks no further than the first, since a folder has a file for each partition."""
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.endswith(".parquet") for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _all_in(folder: Path) -> str:
    """A glob of the folder's Parquet files; brackets and stars in the project's own path are no pattern."""
    return f"{glob.escape(str(folder))}/*.parquet"


def _read(globs: list[str]) -> str:
    listed = ", ".join(literal(each) for each in globs)
    return f"SELECT * FROM read_parquet([{listed}], union_by_name = true)"
