"""Attaching a database server: its secret for no longer than that takes, with a deadline for one that restarts."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pip_dagster.declaration.lake import is_transient
from pip_dagster.errors import SourceAwayError, SourceError
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse import lock

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.flow.origins.opened import Opening


# What the clients of MySQL and MariaDB say of a server that does not answer, beside what Postgres' does. They write the
# same sentence in other capitals.
_AWAY = (
    *("can't connect to", "lost connection to", "server has gone away", "too many connections"),
    *("server shutdown in progress", "connection was killed"),
)


def is_away(error: BaseException) -> bool:
    """Whether reading may succeed when it is tried again: the server does not answer, or not now."""
    return is_transient(error) or any(text in str(error).lower() for text in _AWAY)


def new_catalog() -> str:
    """A name under which no SQL of a person finds a database."""
    return f"source_{secrets.token_hex(8)}"


def attach_server(
    at: Opening, kind: str, connection: Mapping[str, str], options: str, *, where: str, place: str
) -> str:
    """Attach a server read-only, and return the name of its catalog.

    DuckDB prints a connection string in errors and in `duckdb_databases()`. So what `connection` consists of goes into
    a secret, which is dropped once the database is attached; `options` is the string without it.

    Raises:
        SourceAwayError: the server did not answer before the deadline of locks.
        SourceError: it refuses the connection.
    """
    import duckdb

    catalog, con = new_catalog(), at.con
    listed = ", ".join([f"TYPE {kind}", *([f"SECRET {quote(catalog)}"] if connection else []), "READ_ONLY"])
    until = time.monotonic() + lock.declared_deadline()
    while True:
        try:
            with secret(con, catalog, kind, connection):
                con.execute(f"ATTACH {literal(options)} AS {quote(catalog)} ({listed})")
            break
        except duckdb.Error as error:
            said = masked(error, connection).replace(f' at "{options}"', "")
            if not is_away(error):
                # Not `from error`: what DuckDB says may hold a part of the connection.
                raise SourceError(f"{where}: {place} refuses the connection, or is not there. {said}") from None
            if time.monotonic() >= until:
                raise SourceAwayError(f"{where}: {place} does not answer. {said}") from None
        time.sleep(random.uniform(0.1, 0.5))
    at.stack.callback(detach, con, catalog)
    return catalog


@contextmanager
def secret(con: DuckDBPyConnection, name: str, kind: str, content: Mapping[str, str]) -> Iterator[None]:
    """A secret of DuckDB's while a database is attached with it; none where it would be empty."""
    listed = ", ".join([f"TYPE {kind}", *(f"{key} {literal(value)}" for key, value in content.items())])
    try:
        if content:
            con.execute(f"CREATE TEMPORARY SECRET {quote(name)} ({listed})")
        yield
    finally:
        if content:
            con.execute(f"DROP TEMPORARY SECRET IF EXISTS {quote(name)}")


def detach(con: DuckDBPyConnection, catalog: str) -> None:
    """Detach a database, where it is attached."""
    con.execute("USE memory")
    con.execute(f"DETACH DATABASE IF EXISTS {quote(catalog)}")


def masked(error: BaseException, connection: Mapping[str, str]) -> str:
    """The first line of an error, without a password."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]  # of attaching, which reads no row
    if password := connection.get("PASSWORD"):
        text = text.replace(password, "***")
    return f"DuckDB says: {text}"
