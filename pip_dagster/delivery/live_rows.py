"""The live rows of partitions, as published, each with the live change that it is of: of one generation.

They are read from the published files, which nobody waits for. Where a lake publishes none, they are read from the
lake, as of one moment.
"""

from __future__ import annotations

import glob
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.errors import WarehouseError
from pip_dagster.ledger.record import dicts
from pip_dagster.quoted import first
from pip_dagster.sql.names import among, literal, quote
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.faults import remedy
from pip_dagster.warehouse.interrupts import raise_if_interrupted
from pip_dagster.warehouse.published_rows import attached_tables, files_of, found_in, in_files, is_shared
from pip_dagster.warehouse.tables import views_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

_LEDGER = ("ledger", "partitions")


@dataclass(frozen=True)
class Live:
    """A live partition, and its rows.

    `select` is SQL of them, with the columns `columns`: name → SQL type, those of all published partitions. `file`
    has them, where they are published.
    """

    partition_key: str
    start: datetime
    end: datetime
    change_id: str
    scoring_ids: tuple[str, ...]
    select: str
    columns: dict[str, str]
    file: Path | None = None


class UnreadableError(WarehouseError):
    """A file of published rows is damaged, which is no fault of the target."""


@dataclass(frozen=True)
class Unreadable:
    """A partition whose published rows cannot be read, and why: a sentence."""

    partition_key: str
    why: str


def live_rows(
    con: DuckDBPyConnection, project: Project, pipeline: str, keys: Sequence[str]
) -> Iterator[Live | Unreadable]:
    """The live ones of these partitions. Their rows can be read until the next is requested.

    A file that is damaged, or was published by a version that did not name live changes, costs its own partitions only.

    Raises:
        WarehouseError: the files cannot be read together, or a lake that publishes nothing cannot be read.
    """
    import duckdb

    if not project.publishes:
        with reading(con, project, purpose=f"{pipeline}: delivering"):
            yield from _of_lake(con, pipeline, keys)
        return
    folder = project.published / pipeline
    faults: dict[Path, str] = {}
    try:
        found, columns = _found(con, folder, pipeline, keys, faults)
    except duckdb.Error as error:
        raise_if_interrupted(error)
        faults = _faults(con, folder, pipeline)
        try:
            found, columns = _found(con, folder, pipeline, keys, faults)
        except duckdb.Error as again:
            raise WarehouseError(unreadable(folder, first(again))) from again
    by_file: dict[Path, list[str]] = {}
    for key, file in found.items():
        by_file.setdefault(file, []).append(key)
    for file, of_file in by_file.items():
        yield from _of_file(con, pipeline, file, of_file, columns)
    # Which partitions a damaged file has cannot be read from it.
    if shared := next((file for file in faults if is_shared(file)), None):
        why = unreadable(shared, faults[shared])
        yield from (Unreadable(key, why) for key in keys if key not in found)


def _found(
    con: DuckDBPyConnection, folder: Path, pipeline: str, keys: Sequence[str], without: Container[Path]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Partition → the file that has it, and the columns of the published predictions, with their types."""
    found = found_in(con, folder, keys, without=without)
    files = [file for file in files_of(folder) if file not in without]
    if not found or not files:
        return found, {}
    pattern = ", ".join(literal(glob.escape(str(file))) for file in files)
    rows = in_files(f"[{pattern}]", pipeline, "predictions")
    described = con.execute(f"DESCRIBE FROM {rows}").fetchall()
    return found, {name: sql_type for name, sql_type, *_ in described}


def _faults(con: DuckDBPyConnection, folder: Path, pipeline: str) -> dict[Path, str]:
    """The files that cannot be read, and what DuckDB says of each."""
    import duckdb

    found = {}
    for file in files_of(folder):
        try:
            for schema, table in (_LEDGER, (pipeline, "predictions")):
                rows = in_files(literal(glob.escape(str(file))), schema, table)
                con.execute(f"SELECT count(partition_key) FROM {rows}").fetchall()
        except duckdb.Error as error:
            raise_if_interrupted(error)
            found[file] = first(error)
    return found


def _of_file(
    con: DuckDBPyConnection, pipeline: str, file: Path, keys: Sequence[str], columns: dict[str, str]
) -> Iterator[Live | Unreadable]:
    import duckdb

    left = dict.fromkeys(keys)
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
                select = f"SELECT {listed} FROM ({rows}) WHERE {where}"
                yield replace(each, select=select, columns=types, file=file)
                left.pop(each.partition_key, None)
    except (duckdb.Error, KeyError) as error:
        raise_if_interrupted(error)
        why = f"it has no table {'.'.join(error.args[0])}" if isinstance(error, KeyError) else first(error)
        yield from (Unreadable(key, unreadable(file, why)) for key in left)


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


def unreadable(file: Path, why: str) -> str:
    """The sentence about a file of published rows that cannot be read."""
    lacks_right = "ermission denied" in why
    fix = remedy(why) if lacks_right else "Run `pip-dagster publish` to write them again from the warehouse."
    return f"the published rows in {file} cannot be read for delivery: {why.rstrip('.!')}. {fix}"
