"""A year of flights by 1, 2 and 4 processes at once, each with its share of the dates, into one warehouse."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

from benchmarks import data
from benchmarks.measure import Measured, pip_dagster
from benchmarks.suite import Figure, Options, benchmark, note

FIRST, DAYS = date(2013, 1, 1), 364


@benchmark("workers", long=True)
def workers(_: Options) -> list[Figure]:
    """CPU seconds, time and waits for the warehouse's lock of processes that write to it at once."""
    data.sources()
    data.registry()
    figures, alone = [], 0.0
    for count in (1, 2, 4):
        note(f"{count} processes at once")
        seconds, cpu, waited = _at_once(count)
        alone = alone or cpu
        detail = f"{seconds:.0f} s, {cpu:.1f} CPU s; a process waited {waited:.1f} s for the lock"
        figures.append(Figure(f"a year by {count} processes at once, against one", cpu / alone, None, "×", detail))
    return figures


def _at_once(count: int) -> tuple[float, float, float]:
    """Seconds of the slowest, CPU seconds of all, and the seconds that each waited for the lock on average."""
    with data.scratch() as folder:
        root = data.year_project(folder)
        share = DAYS // count

        def run(number: int) -> Measured:
            first = FIRST + timedelta(days=number * share)
            last = first + timedelta(days=share - 1)
            return _backfill(root, first, last)

        with ThreadPoolExecutor(count) as pool:
            found = list(pool.map(run, range(count)))
        waited = _waited(root / "data" / "warehouse.duckdb")
    return max(each.seconds for each in found), sum(each.cpu_seconds for each in found), waited / count


def _backfill(root: Path, first: date, last: date) -> Measured:
    days = ["--from", f"{first}", "--to", f"{last}", "--chunk", "365", "--no-dagster"]
    return pip_dagster(root, "backfill", "flight_delay", *days)


def _waited(warehouse: Path) -> float:
    """What the ledger recorded of waits, once for each transaction: its scorings share a time."""
    import duckdb

    with duckdb.connect(str(warehouse), read_only=True) as con:
        of = "SELECT DISTINCT run_id, lock_seconds FROM ledger.scorings WHERE role = 'champion'"
        found = con.execute(f"SELECT coalesce(sum(lock_seconds), 0) FROM ({of})").fetchone()
    assert found
    return float(found[0])
