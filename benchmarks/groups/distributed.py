"""One partition by tasks on a Ray cluster against one process."""

from __future__ import annotations

from benchmarks.suite import Figure, Options, benchmark


@benchmark("distributed", long=True)
def distributed(options: Options) -> list[Figure]:
    """One process against tasks on a Ray cluster of two nodes on this machine; needs the extra `ray`."""
    from benchmarks.distributed import measure

    found = measure("1M", 2)
    local, ray = (sum(found[name][part] for part in ("scoring_cpu", "extraction_cpu")) for name in ("local", "ray"))
    detail = f"{local:.1f} s → {ray:.1f} s, digests equal"
    return [Figure("extraction and scoring by 2 tasks of Ray, in CPU seconds", ray / local, None, "×", detail)]
