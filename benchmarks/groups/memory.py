"""Peak memory of a whole run by the size of its one partition."""

from __future__ import annotations

from benchmarks import data
from benchmarks.measure import case
from benchmarks.suite import Figure, Options, benchmark, note


@benchmark("memory")
def memory(options: Options) -> list[Figure]:
    """Peak resident memory of extracting, scoring, committing and publishing one partition, by its rows."""
    data.registry()
    sizes = ["1M", "3M", "10M", *(["30M", "100M"] if options.long else [])]
    peaks = {}
    for size in sizes:
        note(f"memory, {size} rows")
        data.scale(size)
        peaks[size] = case("benchmarks.cases:scale", size, "whole").peak_mb
    listed = ", ".join(f"{size}: {peak:.0f} MB" for size, peak in peaks.items())
    return [
        Figure(
            f"peak memory, {sizes[-1]} rows against {sizes[0]}", peaks[sizes[-1]] / peaks[sizes[0]], 1.10, "×", listed
        ),
        Figure("peak memory, the highest", max(peaks.values()) / 1000, 1.5, "GB", listed),
    ]
