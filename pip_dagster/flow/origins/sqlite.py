"""Tables and views of a SQLite file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote as quote_url

from pip_dagster.errors import SourceAwayError, SourceError
from pip_dagster.flow.origins.opened import Opened
from pip_dagster.flow.origins.servers import detach, new_catalog
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse import lock, s3
from pip_dagster.warehouse.connect import spill_folder
from pip_dagster.warehouse.unreadable import why_unreadable

if TYPE_CHECKING:
    from pip_dagster.declaration.source import Source
    from pip_dagster.flow.origins.opened import Opening

EXTENSIONS = ("sqlite_scanner",)


def open_origin(at: Opening, name: str, source: Source) -> Opened:
    """Attach a copy of the file, once for all its sources."""
    import duckdb

    path, where = at.root / (source.sqlite or ""), at.where(name, source)
    if str(path) not in at.catalogs:
        if not path.is_file():
            raise SourceError(f"{where}: there is no SQLite file {path}. Create it, or correct `sqlite`.")
        for extension in EXTENSIONS:
            s3.load_extension(at.con, extension, where, SourceError)
        catalog = new_catalog()
        copy = spill_folder(at.con) / f"{catalog}.db"
        at.stack.callback(copy.unlink, missing_ok=True)
        try:
            _copied(path, copy)
            at.con.execute(f"ATTACH {literal(str(copy))} AS {quote(catalog)} (TYPE sqlite, READ_ONLY)")
        except (duckdb.Error, sqlite3.Error, OSError) as error:
            why = trouble(error) or f"{why_unreadable(path, error)}."
            kind = SourceAwayError if "locked" in str(error) else SourceError
            raise kind(f"{where}: {path} cannot be read as a SQLite file. {why}") from error
        at.stack.callback(detach, at.con, catalog)
        at.catalogs[str(path)] = catalog
    catalog = at.catalogs[str(path)]
    return Opened(f"{quote(catalog)}.main.{quote(source.remote_parts('')[1])}", catalog)  # SQLite has no schemas


def _copied(path: Path, copy: Path) -> None:
    """Copy the file as it is at one moment.

    DuckDB opens a connection for each scan, which sees what was committed by then. A lock of ours would not prevent
    that: it ends when any connection of this process to the file is closed.
    """
    address = f"file:{quote_url(str(path.resolve()))}?mode=ro"
    with (
        closing(sqlite3.connect(address, uri=True, timeout=lock.declared_deadline())) as found,
        closing(sqlite3.connect(copy)) as to,
    ):
        found.execute("SELECT count(*) FROM sqlite_master").fetchone()  # waits for a writer, which a backup does not
        found.backup(to)


def trouble(error: BaseException) -> str:
    """What an error of SQLite's means."""
    text = str(error)
    if "database is locked" in text or "database table is locked" in text:
        return "Another process writes it. Wait for the end of its transaction, or have it use WAL mode."
    if "readonly database" in text:
        return "A writer died in its transaction. Open the file once with sqlite3 and read a table: that rolls it back."
    if "not a database" in text:
        return "It is no SQLite file, or encrypted."
    if "column was declared as" in text or "Mismatch Type" in text:
        return (
            "SQLite does not hold rows to their column's type. Correct the row, which typeof(…) of the column "
            "finds, or declare a view with CAST(… AS …)."
        )
    return ""


def identity(root: Path, source: Source) -> str | None:
    """None: `unchanged` reads the times of files."""
    return None
