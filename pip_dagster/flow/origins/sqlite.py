"""Tables and views of a SQLite file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.errors import SourceAwayError, SourceError
from pip_dagster.flow.origins.opened import Opened
from pip_dagster.flow.origins.servers import detach, new_catalog
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse import s3
from pip_dagster.warehouse.unreadable import why_unreadable

if TYPE_CHECKING:
    from pip_dagster.declaration.source import Source
    from pip_dagster.flow.origins.opened import Opening

EXTENSIONS = ("sqlite_scanner",)


def open_origin(at: Opening, name: str, source: Source) -> Opened:
    """Attach the file read-only, once for all its sources; they are read in one transaction."""
    import duckdb

    path, where = at.root / (source.sqlite or ""), at.where(name, source)
    if str(path) not in at.catalogs:
        if not path.is_file():
            raise SourceError(f"{where}: there is no SQLite file {path}. Create it, or correct `sqlite`.")
        for extension in EXTENSIONS:
            s3.load_extension(at.con, extension, where, SourceError)
        catalog = new_catalog()
        try:
            at.con.execute(f"ATTACH {literal(str(path))} AS {quote(catalog)} (TYPE sqlite, READ_ONLY)")
            at.stack.callback(detach, at.con, catalog)
            at.con.execute(f"SELECT count(*) FROM duckdb_tables() WHERE database_name = {literal(catalog)}")
        except (duckdb.Error, OSError) as error:
            why = trouble(error) or why_unreadable(path, error)
            kind = SourceAwayError if "locked" in str(error) else SourceError
            raise kind(f"{where}: {path} cannot be read as a SQLite file. {why}") from error
        at.catalogs[str(path)] = catalog
        state: list[str] = []

        def begin() -> None:
            at.con.execute(f"SELECT count(*) FROM {quote(catalog)}.sqlite_master").fetchone()
            state.append(_state(path))
            if state[-1] != state[0]:  # another transaction, which sees what was written since the first
                raise SourceAwayError(f"{where}: {path} was written while it was read. Run again.")

        at.begins.append(begin)
    catalog = at.catalogs[str(path)]
    return Opened(f"{quote(catalog)}.main.{quote(source.remote_parts('')[1])}", catalog)


def _state(path: Path) -> str:
    found = []
    for each in (path, Path(f"{path}-wal")):
        try:
            status = each.stat()
        except FileNotFoundError:
            continue
        found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return str(found)


def trouble(error: BaseException) -> str:
    """What an error of SQLite's means."""
    text = str(error)
    if "database is locked" in text or "database table is locked" in text:
        return "Another process writes it. Wait for the end of its transaction, or use WAL mode."
    if "not a database" in text:
        return "It is no SQLite file, or encrypted."
    if "column was declared as" in text or "Mismatch Type" in text:
        return (
            "SQLite does not hold rows to a column's type, and a column without one is read as BLOB. Declare the type "
            "in SQLite, correct the rows, or read a view with CAST(… AS …)."
        )
    return ""


def identity(root: Path, source: Source) -> str | None:
    """None: `unchanged` reads the times of files."""
    return None
