"""What this process's container, or its machine, lets it use: CPUs and memory, from cgroup v2 or v1."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def memory(root: Path = ROOT, own: Path = OWN) -> float:
    """Bytes of memory: the machine's, or fewer if a cgroup has a limit."""
    found = [float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")]
    for folder in _folders("memory", root, own):
        for name in ("memory.max", "memory.limit_in_bytes"):
            found += [float(text) for text in _words(folder / name)[:1] if text.isdigit()]
    return min(found)


def cpus(root: Path = ROOT, own: Path = OWN) -> float | None:
    """The CPU time that a cgroup allows, in CPUs; None without a limit."""
    found = []
    for folder in _folders("cpu", root, own):
        quota = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(quota) == 2 and all(text.isdigit() for text in quota):  # "max" or -1: no limit
            found.append(int(quota[0]) / int(quota[1]))
    return min(found, default=None)


def _folders(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's cgroup and of those around it, each of which may have a limit.

    In a container the mounted root often is its own cgroup, and the path that the kernel reports is not there.
    """
    yield from (root, root / controller)
    for line in _lines(own):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for base in (root / controllers, root / controller) if controllers else (root, root / "unified"):
            parts = Path(path.lstrip("/")).parts
            yield from (base.joinpath(*parts[:count]) for count in range(1, len(parts) + 1))


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in file.read_text().splitlines() if line.count(":") >= 2]
    except (OSError, ValueError):
        return []


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except (OSError, ValueError):
        return []
