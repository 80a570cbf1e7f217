"""The live rows of partitions, as published, each with the live change that it is of: of one generation.

They are read from the published files, which nobody waits for. Where a lake publishes none, they are read from the
lake, as of one moment.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.errors import WarehouseError
from pip_dagster.ledger.record import dicts
from pip_dagster.sql.names import among, literal, quote
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.published_rows import attached_tables, found_in, in_files
from pip_dagster.warehouse.tables import views_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

_LEDGER = ("ledger", "partitions")


@dataclass(frozen=True)
class Live:
    """A live partition, and its rows.

    `select` is SQL of them, with the columns `columns`: name → SQL type, those of all published partitions.
    """

    partition_key: str
    start: datetime
    end: datetime
    change_id: str
    scoring_ids: tuple[str, ...]
    select: str
    columns: dict[str, str]


def live_rows(con: DuckDBPyConnection, project: Project, pipeline: str, keys: Sequence[str]) -> Iterator[Live]:
    """The live ones of these partitions. Their rows can be read until the next is requested.

    Raises:
        WarehouseError: a file is damaged, or was published by a version that did not name live changes.
    """
    import duckdb

    if not project.publishes:
        with reading(con, project, purpose=f"{pipeline}: delivering"):
            yield from _of_lake(con, pipeline, keys)
        return
    folder = project.published / pipeline
    by_file: dict[Path, list[str]] = {}
    try:
        for key, file in found_in(con, folder, keys).items():
            by_file.setdefault(file, []).append(key)
        columns = _described(con, folder, pipeline) if by_file else {}
    except duckdb.Error as error:
        raise _unreadable(folder, error) from error
    for file, of_file in by_file.items():
        yield from _of_file(con, pipeline, file, of_file, columns)


def _of_file(
    con: DuckDBPyConnection, pipeline: str, file: Path, keys: Sequence[str], columns: dict[str, str]
) -> Iterator[Live]:
    import duckdb

    try:
        with attached_tables(con, [file]) as tables:
            ledger, of_keys = tables[_LEDGER][0], among("partition_key", keys)
            found = _scorings(con, f"({ledger})", of_keys, arms=tables.get(("ledger", "arms"), [""])[0])
            if not found:
                return
            rows = tables[(pipeline, "predictions")][0]
            own = {name: of for name, of, *_ in con.execute(f"DESCRIBE {rows}").fetchall()}
            listed = ", ".join(
                quote(name) if name in own else f"NULL::{sql_type} AS {quote(name)}"
                for name, sql_type in columns.items()
            )
            types = {name: own.get(name, sql_type) for name, sql_type in columns.items()}
            for each in found:
                where = f"partition_key = {literal(each.partition_key)}"
                yield replace(each, select=f"SELECT {listed} FROM ({rows}) WHERE {where}", columns=types)
    except (duckdb.Error, KeyError) as error:
        raise _unreadable(file, error) from error


def _of_lake(con: DuckDBPyConnection, pipeline: str, keys: Sequence[str]) -> Iterator[Live]:
    if "predictions" not in views_of(con, pipeline):
        return
    rows = f"{quote(pipeline)}.predictions"
    columns = {name: sql_type for name, sql_type, *_ in con.execute(f"DESCRIBE {rows}").fetchall()}
    where = f"pipeline = {literal(pipeline)} AND {among('partition_key', keys)}"
    for each in _scorings(con, "ledger.partitions", where, arms="FROM ledger.live_arms"):
        # The scorings as literals, so that DuckDB skips the files of others.
        of = f"partition_key = {literal(each.partition_key)} AND {among('scoring_id', each.scoring_ids)}"
        yield replace(each, select=f"SELECT * FROM {rows} WHERE {of}", columns=columns)


def _scorings(con: DuckDBPyConnection, partitions: str, where: str, *, arms: str) -> list[Live]:
    """The live partitions, without rows; `partitions` and `arms` are SQL."""
    select = (
        "SELECT partition_key, partition_start, partition_end, live_change, scoring_id "
        f"FROM {partitions} WHERE is_live AND live_change IS NOT NULL AND {where} ORDER BY partition_key"
    )
    shared: dict[str, list[str]] = {}
    if arms:
        listed = f"SELECT DISTINCT partition_key, scoring_id FROM ({arms}) WHERE {where} ORDER BY ALL"
        for key, scoring in con.execute(listed).fetchall():
            if scoring is not None:
                shared.setdefault(key, []).append(scoring)
    return [
        Live(
            *(row["partition_key"], row["partition_start"], row["partition_end"], row["live_change"]),
            scoring_ids=tuple(shared.get(row["partition_key"]) or [row["scoring_id"]]),
            select="",
            columns={},
        )
        for row in dicts(con.execute(select))
    ]


def _described(con: DuckDBPyConnection, folder: Path, pipeline: str) -> dict[str, str]:
    """The columns of the published predictions, with their types."""
    pattern = f"{glob.escape(str(folder))}/*.duckdb"
    rows = in_files(literal(pattern), pipeline, "predictions")
    return {name: sql_type for name, sql_type, *_ in con.execute(f"DESCRIBE FROM {rows}").fetchall()}


def _unreadable(place: Path, error: Exception) -> WarehouseError:
    return WarehouseError(
        f"The published rows in {place} cannot be read for delivery: {str(error).splitlines()[0]} Run `pip-dagster "
        "publish` to write them again from the warehouse."
    )
