"""What the origins of files share: the place as DuckDB reads it, a listing of a folder, and errors of servers."""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.declaration.places import is_remote, root_of
from pip_dagster.errors import SourceAwayError, SourceError
from pip_dagster.sql.names import literal
from pip_dagster.warehouse import remote
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.interrupts import raise_if_interrupted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# A file on a server may be written twice within a second, which is what its time is given in.
SETTLED_SECONDS = 2.0


def placed(root: Path, declared: str) -> str:
    """A declared folder or file as an absolute path or a URL, without a slash at its end."""
    return declared.rstrip("/") if is_remote(declared) else str(root / declared)


@contextmanager
def reaching(con: DuckDBPyConnection, place: str, where: str) -> Iterator[None]:
    """Give `con` access to a place; an error of its server within becomes a sentence.

    Raises:
        SourceError: there are no credentials, or the server refuses.
        SourceAwayError: the server does not answer.
    """
    import duckdb

    if scope := root_of(place):
        remote.reach(con, scope, where, SourceError)
    try:
        yield
    except duckdb.Error as error:
        raise_if_interrupted(error)
        found = server_trouble(error, place)
        if found is None:
            raise
        raise type(found)(f"{where} cannot be read from {place}. {found}") from error


def server_trouble(error: BaseException, place: str) -> SourceError | None:
    """An error of the server that a place is on, as a sentence; None for any other error."""
    if not (is_remote(place) and remote.is_of_server(error)):
        return None
    kind = SourceAwayError if remote.is_away(error) else SourceError
    return kind(remote.trouble(error, place))


def listed(con: DuckDBPyConnection, folder: str, pattern: str) -> list[str]:
    """The files of a folder; none where there is no folder."""
    inside = folder if is_remote(folder) else glob.escape(folder)
    return [row[0] for row in con.execute(f"SELECT file FROM glob({literal(f'{inside}/{pattern}')})").fetchall()]


def state_of_files(pattern: str) -> str | None:
    """Names, sizes and times of the files on a server, found without reading them; None where it reports no times.

    Times have seconds: files that were written in the last few may be written again in the same second.
    """
    scope = root_of(pattern)
    if scope is None:
        return None
    with workspace(threads=1) as con, reaching(con, pattern, pattern):
        return written(con, pattern)


def written(con: DuckDBPyConnection, pattern: str) -> str | None:
    """Names, sizes and times of files, without reading them; None where the same second may see another write."""
    rows = con.execute(
        f"SELECT filename, size, epoch_us(last_modified) FROM read_blob({literal(pattern)}) ORDER BY 1"
    ).fetchall()
    settled = (time.time() - SETTLED_SECONDS) * 1e6
    return None if any(not at or at > settled for *_, at in rows) else str(rows)


def trouble_of_table(error: BaseException) -> str:
    """What an error means for the files of a table format."""
    if "No such file" in str(error) or "Cannot open file" in str(error):
        return "A file of the pinned version was removed while it was read, by a vacuum or by hand. Run again."
    return ""
