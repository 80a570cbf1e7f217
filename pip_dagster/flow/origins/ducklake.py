"""Tables and views of a DuckLake, as of its newest snapshot when it is opened."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.declaration.lake import is_transient
from pip_dagster.declaration.server import Server
from pip_dagster.errors import SourceAwayError, SourceError
from pip_dagster.flow.origins import postgres
from pip_dagster.flow.origins.opened import Opened
from pip_dagster.flow.origins.servers import detach, masked, new_catalog, secret
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse import lock, s3
from pip_dagster.warehouse.connect import LOCKED, workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.source import Source
    from pip_dagster.flow.origins.opened import Opening

EXTENSIONS = ("ducklake",)


def open_origin(at: Opening, name: str, source: Source) -> Opened:
    """Attach the lake read-only as of its newest snapshot, once for all its sources."""
    where, place = at.where(name, source), source.place(None)
    if place not in at.catalogs:
        at.catalogs[place] = catalog = new_catalog()
        at.stack.callback(detach, at.con, catalog)
        _attach(at.con, at.root, source, catalog, where)
        snapshot = _snapshot(at.con, catalog)
        detach(at.con, catalog)
        _attach(at.con, at.root, source, catalog, where, f"SNAPSHOT_VERSION {snapshot}")
    catalog = at.catalogs[place]
    row = at.con.execute(f"SELECT data_path FROM ducklake_settings({literal(catalog)})").fetchone()
    folder = str(row[0]) if row else ""
    if folder.startswith(s3.PREFIX):
        s3.reach(at.con, folder, where, SourceError)
    return Opened(f"{quote(catalog)}.{source.remote('main')}", catalog, folders=frozenset({folder}))


def _snapshot(con: DuckDBPyConnection, catalog: str) -> int:
    row = con.execute(f"SELECT max(snapshot_id) FROM ducklake_snapshots({literal(catalog)})").fetchone()
    assert row
    return int(row[0])


def _attach(con: DuckDBPyConnection, root: Path, source: Source, catalog: str, where: str, *options: str) -> None:
    """Attach the lake, waiting until the deadline of locks while its catalog is locked or away."""
    import duckdb

    declared, place, until = source.ducklake, source.place(None), time.monotonic() + lock.declared_deadline()
    connection: dict[str, str] = {}
    listed = ["READ_ONLY", *options]
    if isinstance(declared, Server):
        url = declared.url(root, where).removeprefix("ducklake:").removeprefix("postgres:")
        connection, rest = postgres.connection_of(url, where, place, "ducklake")
        target = f"ducklake:postgres:{rest}"
        listed += [f"META_SECRET {literal(catalog)}"] if connection else []
    else:
        file = root / str(declared)
        if not file.is_file():
            raise SourceError(f"{where}: there is no catalog {file} of a DuckLake. Create it, or correct `ducklake`.")
        target = f"ducklake:{file}"
    for extension in ("postgres_scanner", *EXTENSIONS) if isinstance(declared, Server) else EXTENSIONS:
        s3.load_extension(con, extension, where, SourceError)
    while True:
        try:
            with secret(con, catalog, "postgres", connection):
                con.execute(f"ATTACH {literal(target)} AS {quote(catalog)} ({', '.join(listed)})")
            return
        except duckdb.Error as error:
            said = masked(error, connection)
            is_locked = any(text in str(error) for text in LOCKED)
            if not (is_locked or is_transient(error)):
                raise SourceError(f"{where}: {place} cannot be opened as a DuckLake. {said}") from None
            if time.monotonic() >= until:
                what = "stayed locked by another process" if is_locked else "does not answer"
                raise SourceAwayError(f"{where}: {place} {what}. {said}") from None
        time.sleep(random.uniform(0.1, 0.5))


def trouble(error: BaseException) -> str:
    """What an error of a lake's means."""
    text = str(error)
    if "No such file" in text or "404" in text or "No files found" in text:
        return "A file of the snapshot that is read is gone: snapshots were expired meanwhile. Run again."
    return ""


def identity(root: Path, source: Source) -> str | None:
    """The newest snapshot. A view's rows may come from elsewhere: it has none."""
    with lock.waiting_at_most(0), workspace(threads=1) as con:
        catalog = new_catalog()
        _attach(con, root, source, catalog, f"source {source.table}")
        schema, table = source.remote_parts("main")
        is_table = con.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE database_name = $c AND lower(schema_name) = lower($s) "
            "AND lower(table_name) = lower($t)",
            {"c": catalog, "s": schema, "t": table},
        ).fetchone()
        newest = f"SELECT max(snapshot_id), max(snapshot_time)::VARCHAR FROM ducklake_snapshots({literal(catalog)})"
        state = con.execute(newest).fetchone()  # a lake that is created again counts from the same number
        return f"{source.place(None)} {state}" if is_table and is_table[0] else None
