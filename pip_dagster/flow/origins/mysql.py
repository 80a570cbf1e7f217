"""Tables and views of a MySQL server."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pip_dagster.declaration.lake import connection_parameters
from pip_dagster.errors import SourceError
from pip_dagster.flow.origins.opened import Opened
from pip_dagster.flow.origins.servers import attach_server
from pip_dagster.sql.names import quote
from pip_dagster.warehouse import s3

if TYPE_CHECKING:
    from pip_dagster.declaration.source import Source
    from pip_dagster.flow.origins.opened import Opening

EXTENSIONS = ("mysql_scanner",)

# What the server computes by its own rules stays in DuckDB, and a TIMESTAMP is read as UTC.
_SETTINGS = {
    "mysql_aggregate_pushdown_enabled": "false",
    "mysql_order_pushdown_enabled": "false",
    "mysql_session_time_zone": "'+00:00'",
}
_NAMES = {
    "host": "HOST",
    "port": "PORT",
    "user": "USER",
    "password": "PASSWORD",  # pragma: allowlist secret
    "socket": "SOCKET",
} | dict.fromkeys(("database", "dbname", "db"), "DATABASE")


def open_origin(at: Opening, name: str, source: Source) -> Opened:
    """Attach the server, once for all its sources; they are read in one transaction."""
    assert source.mysql
    where, place = at.where(name, source), source.place(None)
    if place not in at.catalogs:
        connection = connection_of(source.mysql.url(at.root, where), where, place)
        for extension in EXTENSIONS:
            s3.load_extension(at.con, extension, where, SourceError)
        for setting, value in _SETTINGS.items():
            at.con.execute(f"SET {setting} = {value}")
        at.catalogs[place] = attach_server(at, "mysql", connection, "", where=where, place=place)
        began: list[bool] = []

        def begin() -> None:
            if began:  # another transaction sees another state
                raise SourceError(
                    f"{where}: a query failed, and {place} cannot be read again as it was. Correct the row or the SQL "
                    "that fails, or allow more memory, and run again."
                )
            began.append(True)

        at.begins.append(begin)
    catalog = at.catalogs[place]
    return Opened(_exact(at, f"{quote(catalog)}.{source.remote(source.table.split('.')[0])}"), catalog)


def _exact(at: Opening, table: str) -> str:
    """The table with its texts as expressions, so that no comparison of them is the server's.

    By its usual collations 'a' equals 'A'.
    """
    import duckdb

    with suppress(duckdb.Error):  # of a table that is not there, which is reported with the view
        columns = at.con.execute(f"DESCRIBE {table}").fetchall()
        if texts := [f"{quote(name)} || '' AS {quote(name)}" for name, kind, *_ in columns if kind == "VARCHAR"]:
            return f"(SELECT * REPLACE ({', '.join(texts)}) FROM {table})"
    return table


def connection_of(url: str, where: str, place: str) -> dict[str, str]:
    """A connection string as the content of a secret.

    Raises:
        SourceError: it is not one; the message does not show it.
    """
    if url.startswith("mysql://"):
        try:
            parts = urlsplit(url)
            found = {
                "host": parts.hostname or "",
                "port": str(parts.port or ""),
                "user": unquote(parts.username or ""),
                "password": unquote(parts.password or ""),
                "database": unquote(parts.path.removeprefix("/")),
            }
        except ValueError:
            found = {}
    else:
        found = {} if "://" in url else connection_parameters(url)
    connection = {_NAMES[key]: value for key, value in found.items() if key in _NAMES and value}
    if not connection or found.keys() - _NAMES.keys():
        raise SourceError(
            f"{where}: what {place} holds is not a MySQL connection string; expected "
            "mysql://…@host:3306/database, or host=… database=… user=… password=…"
        )
    return connection


def trouble(error: BaseException) -> str:
    """What a server's error means."""
    if "denied" in str(error):
        return "The user of the connection may not read it: GRANT SELECT on it."
    return ""


def identity(root: Path, source: Source) -> str | None:
    """None: MySQL has none that every engine of its tables keeps."""
    return None
