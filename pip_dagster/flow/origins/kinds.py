"""The origins by the key that declares them. DuckDB files and Parquet are in `source_files`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster.errors import SourceAwayError, SourceError
from pip_dagster.flow.origins import csv, delta, ducklake, iceberg, json_files, mysql, postgres, sqlite
from pip_dagster.flow.origins.servers import is_away
from pip_dagster.quoted import first
from pip_dagster.warehouse import remote

if TYPE_CHECKING:
    from pip_dagster.declaration.source import Source
    from pip_dagster.flow.origins.opened import SourceOrigin

_ORIGINS: dict[str | None, SourceOrigin] = {
    "postgres": postgres,
    "mysql": mysql,
    "sqlite": sqlite,
    "ducklake": ducklake,
    "csv": csv,
    "json_files": json_files,
    "delta": delta,
    "iceberg": iceberg,
}
# DuckDB's errors of a server that it reads from, in words that no error about rows has.
_OF_SERVER = ("Failed to prepare COPY", "Failed to execute query", "Failed to fetch", "Failed to send", "MySQL")


def origin_of(source: Source) -> SourceOrigin | None:
    """How a source is read; None for a DuckDB file and Parquet."""
    return _ORIGINS.get(source.origin)


def extensions_of(source: Source) -> tuple[str, ...]:
    """The extensions of DuckDB that reading a source needs."""
    origin, place = origin_of(source), source.place(None)
    return (*(origin.EXTENSIONS if origin else ()), *remote.extensions(place))


def is_of_server(error: BaseException) -> bool:
    """Whether an error of DuckDB's is one of a server that it reads from, not of the SQL or a row."""
    return is_away(error) or remote.is_of_server(error) or any(text in str(error) for text in _OF_SERVER)


def failed(where: str, source: Source, place: str, error: BaseException) -> SourceError:
    """An error of reading a source's rows, as a sentence with its place."""
    origin, said = origin_of(source), f"DuckDB says: {first(error)}"
    kind = SourceAwayError if is_away(error) or remote.is_away(error) else SourceError
    if remote.is_of_server(error) or source.bucket:
        return kind(f"{where} cannot be read from {place}. {remote.trouble(error, place)}")
    remedy = origin.trouble(error) if origin else ""
    return kind(f"{where} cannot be read from {place}. {remedy} {said}".replace("  ", " "))
