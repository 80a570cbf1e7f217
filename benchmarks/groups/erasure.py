"""What an erasure costs: one subject out of a year of flights, in every place."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks import data
from benchmarks.measure import pip_dagster
from benchmarks.suite import Figure, Options, benchmark, note

SUBJECTS = ("WN-882-LGA-20130810", "WN-883-LGA-20130809")  # an erased one costs nothing the second time
WHOLE = ("--from", "2013-01-01", "--to", "2013-12-31", "--chunk", "365")


@benchmark("erasure_year")
def erasure_year(_: Options) -> list[Figure]:
    """`erase` of one subject from a year of flights, the whole process, in CPU seconds."""
    data.sources()
    data.registry()
    with data.scratch() as folder:
        root = data.year_project(folder)
        data.declare(root, "  scoring:\n", "  privacy: {subject: flight_key}\n\n  scoring:\n")
        note("a year of flights to erase from")
        pip_dagster(root, "backfill", "flight_delay", *WHOLE)
        return [erased(root)]


def erased(root: Path) -> Figure:
    """The fewest CPU seconds of two erasures in a project."""
    size = (root / "data" / "warehouse.duckdb").stat().st_size / 1e6
    runs = [pip_dagster(root, "erase", "--subject", each, "--why", "a benchmark") for each in SUBJECTS]
    best = min(runs, key=lambda run: run.cpu_seconds)
    load = os.getloadavg()[0]
    detail = f"{best.seconds:.1f} s at a load of {load:.0f} on {os.cpu_count()} threads; a warehouse of {size:.0f} MB"
    return Figure("an erasure of one subject from a year of flights", best.cpu_seconds, 10, "s of CPU", detail)
