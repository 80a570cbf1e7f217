"""Peak memory of a whole run by the size of its one partition."""

from __future__ import annotations

from statistics import linear_regression

from benchmarks import data
from benchmarks.measure import case
from benchmarks.suite import Figure, Options, benchmark, note


@benchmark("memory")
def memory(options: Options) -> list[Figure]:
    """Peak resident memory of extracting, scoring, committing and publishing one partition, by its rows."""
    data.registry()
    sizes = ["1M", "3M", "10M", *(["30M", "100M"] if options.long else [])]
    peaks: dict[str, float] = {}
    costs = []
    for size in sizes:
        note(f"memory, {size} rows")
        data.scale(size)
        run = case("benchmarks.cases:scale", size, "whole")
        peaks[size] = run.peak_mb
        costs.append((size, run.cpu_seconds / (run.reported["rows"] * len(data.FEATURES) / 1e6)))
    listed = ", ".join(f"{size}: {peak:.0f} MB" for size, peak in peaks.items())
    smallest, largest = _line({data.REPLICAS[size]: peak for size, peak in peaks.items()})
    return [
        Figure(f"peak memory, {sizes[-1]} rows against {sizes[0]}", largest / smallest, 1.10, "×", listed),
        Figure("peak memory, the highest", max(peaks.values()) / 1000, 1.5, "GB", listed),
        Figure(
            f"CPU seconds a million values, {sizes[-1]} rows",
            costs[-1][1],
            None,
            "CPU s",
            ", ".join(f"{size}: {cost:.2f}" for size, cost in costs),
        ),
    ]


def _line(peaks: dict[int, float]) -> tuple[float, float]:
    """The least and the largest size's peak on the line through all of them."""
    slope, first = linear_regression(list(peaks), list(peaks.values()))
    return first + slope * min(peaks), first + slope * max(peaks)
