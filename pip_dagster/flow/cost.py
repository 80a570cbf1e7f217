"""What a partition costs: its share of the time that it was worked on together with others, and the memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """Seconds that passed, seconds of all threads on the processor, and the most memory that the process had taken."""

    seconds: float
    cpu_seconds: float
    peak_memory: int


class Meter:
    """Measures from its creation."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def shares(self, rows: Mapping[str, int]) -> dict[str, Cost]:
        """Each partition's share by its rows; one without rows counts as one row."""
        wall, cpu, peak = time.monotonic() - self._wall, time.process_time() - self._cpu, peak_memory()
        weights = {key: max(1, count) for key, count in rows.items()}
        total = sum(weights.values())
        return {key: Cost(wall * each / total, cpu * each / total, peak) for key, each in weights.items()}


def peak_memory() -> int:
    """The most memory that this process has had resident, in bytes.

    `ru_maxrss` of a process that was forked begins with its parent's; the kernel's own figure does not.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
