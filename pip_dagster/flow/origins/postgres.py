"""Tables and views of a Postgres server."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.declaration.lake import as_pairs, connection_parameters
from pip_dagster.errors import SourceError
from pip_dagster.flow.origins.opened import Opened
from pip_dagster.flow.origins.servers import attach_server
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse import pinned, s3

if TYPE_CHECKING:
    from pip_dagster.declaration.source import Source
    from pip_dagster.flow.origins.opened import Counting, Opening

EXTENSIONS = ("postgres_scanner",)

_IN_SECRET = {
    "host": "HOST",
    "port": "PORT",
    "dbname": "DATABASE",
    "user": "USER",
    "password": "PASSWORD",  # pragma: allowlist secret
}
# Types of a change column of which Postgres and DuckDB find the same newest value.
_COUNTED = re.compile(r"(SMALL|BIG)?INT(EGER)?|DATE|TIMESTAMP( WITH TIME ZONE)?|DECIMAL\(.+\)")
_DAY = timedelta(days=1)
# The columns that hold numerics, and whether the scale is one that only Postgres has.
_NUMBERS = """
SELECT attname, atttypmod > 0 AND ((atttypmod - 4) & 2047) > (((atttypmod - 4) >> 16) & 65535)
FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
WHERE attrelid = to_regclass({table}) AND attnum > 0 AND NOT attisdropped
AND (atttypid IN ('numeric'::regtype, 'numeric[]'::regtype) OR typtype = 'c')
"""
# What the connection string may set otherwise: a server that is gone is noticed, and none is kept busy for ever.
_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_SESSION = {"statement_timeout": "600000", "idle_in_transaction_session_timeout": "0"}


def open_origin(at: Opening, name: str, source: Source) -> Opened:
    """Attach the server, once for all its sources, and pin one snapshot of it."""
    assert source.postgres
    where, place = at.where(name, source), source.place(None)
    if place not in at.catalogs:
        url = source.postgres.url(at.root, where)
        for extension in EXTENSIONS:
            s3.load_extension(at.con, extension, where, SourceError)
        # Cut into ranges of pages, a scan would look into an index once for each of them.
        at.con.execute("SET pg_use_ctid_scan = false")
        connection, options = connection_of(url, where, place, at.pipeline)
        at.catalogs[place] = attach_server(at, "postgres", connection, options, where=where, place=place)
        _pin(at, at.catalogs[place])
    catalog = at.catalogs[place]
    _check_numbers(at, catalog, source, where)
    return Opened(f"{quote(catalog)}.{source.remote('public')}", catalog, counts=partial(_counts, catalog, source))


def _check_numbers(at: Opening, catalog: str, source: Source, where: str) -> None:
    """Have a table with `numeric` columns read as text: in binary, DuckDB reads NaN and infinity as 0.

    The text is held in memory, so that the table is read some pages at a time.

    Raises:
        SourceError: a column has a scale that DuckDB does not know, and would read as another number.
    """
    query = _NUMBERS.format(table=literal(source.remote("public")))
    rows = at.con.execute(f"FROM postgres_query({literal(catalog)}, {literal(query)})").fetchall()
    if odd := [name for name, is_odd in rows if is_odd]:
        raise SourceError(
            f"{where}: the scale of the numeric column {', '.join(odd)} is negative, or larger than its precision. "
            "Declare a view that casts it to numeric with another scale."
        )
    if rows:
        at.con.execute("SET pg_use_text_protocol = true; SET pg_use_ctid_scan = true")


def _counts(catalog: str, source: Source, of: Counting) -> str | None:
    """The counts by Postgres, of whose rows none is read; None for a type whose newest value it sees otherwise."""
    if not _COUNTED.fullmatch(of.change_type):
        return None
    column, seconds = quote(of.column), of.grain // timedelta(seconds=1)
    is_instant = of.sql_type == "TIMESTAMP WITH TIME ZONE"
    local = f"timezone({literal(of.zone)}, {column})" if is_instant else f"{column}::timestamp"
    bounds = [f"{local} >= {literal(str(of.first))}::timestamp AND {local} < {literal(str(of.last))}::timestamp"]
    if is_instant:  # which an index on the column serves
        start, end = (literal(f"{at}+00") for at in (of.first - _DAY, of.last + _DAY))
        bounds.append(f"{column} >= {start}::timestamptz AND {column} < {end}::timestamptz")
    elif of.sql_type == "DATE":
        bounds.append(f"{column} >= {literal(str(of.first.date()))} AND {column} <= {literal(str(of.last.date()))}")
    query = (
        f"SELECT (floor(extract(epoch FROM {local}) / {seconds}) * {seconds})::bigint, max({quote(of.change)}), "
        f"count(*) FROM {source.remote('public')} WHERE {' AND '.join(bounds)} GROUP BY 1"
    )
    newest = f"newest::{of.change_type}::VARCHAR"
    rows = f"postgres_query({literal(catalog)}, {literal(query)}) q(t, newest, n)"
    return f"(SELECT t * 1000000 AS t, {newest} AS newest, n FROM {rows})"


def connection_of(url: str, where: str, place: str, pipeline: str) -> tuple[dict[str, str], str]:
    """A connection string as the content of a secret, and the rest of it with our time-outs.

    Raises:
        SourceError: it is not one; the message does not show it.
    """
    found = connection_parameters(url)
    # No secret of DuckDB's takes the first of these; the second is the URL in a line such as CRM_URL="postgresql://…".
    is_nested = any(re.search(r"://.*@", value) for key, value in found.items() if key != "password")
    if not found or "sslpassword" in found or is_nested:
        raise SourceError(
            f"{where}: what {place} holds is not a Postgres connection string; expected "
            "postgresql://…@host:5432/database, or host=… dbname=… user=… password=…"
        )
    connection = {_IN_SECRET[key]: value for key, value in found.items() if key in _IN_SECRET}
    others = _DEFAULTS | {key: value for key, value in found.items() if key not in _IN_SECRET}
    declared = others.get("options", "")
    session = [f"-c {key}={value}" for key, value in _SESSION.items() if key not in declared]
    others |= {"options": " ".join([declared, *session]).strip(), "application_name": f"pip-dagster {pipeline}"[:63]}
    return connection, as_pairs(tuple(others.items()))


def _pin(at: Opening, catalog: str) -> None:
    """Have all reads see one snapshot, also those of a transaction that is begun again.

    A transaction of a second connection exports it, and lasts as long as the opening.
    """
    keeper = at.con.cursor()
    at.stack.callback(keeper.close)
    at.stack.callback(pinned.roll_back, keeper)  # closed in a transaction whose server is gone, DuckDB ends the process
    keeper.execute("BEGIN TRANSACTION")
    exported = keeper.execute(
        f"SELECT * FROM postgres_query({literal(catalog)}, 'SELECT pg_export_snapshot()')"
    ).fetchone()
    assert exported
    command = literal(f"SET TRANSACTION SNAPSHOT {literal(exported[0])}")

    def begin() -> None:
        at.con.execute(f"CALL postgres_execute({literal(catalog)}, {command})")

    at.begins.append(begin)


def trouble(error: BaseException) -> str:
    """What a server's error means."""
    text = str(error)
    if "permission denied" in text:
        return "The user of the connection may not read it: GRANT SELECT on it, and USAGE on its schema."
    if "statement timeout" in text:
        return (
            "The server took longer than the statement_timeout of the connection, 10 minutes if it sets none. Create "
            "an index on the partition column, or add options=-c%20statement_timeout=… to the connection string."
        )
    if "snapshot" in text:
        return "The snapshot of the server that this run reads is gone. Run again."
    return ""


def identity(root: Path, source: Source) -> str | None:
    """None: what Postgres counts of changes may be late, and is reset."""
    return None
