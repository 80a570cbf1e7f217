"""One measurement is one process with its children: seconds, CPU seconds and peak memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.data import FOLDER, REPOSITORY


@dataclass(frozen=True)
class Measured:
    """One measurement: `seconds` as the case measured them, or of the whole process; memory in MB over all processes."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    reported: dict[str, Any] = field(default_factory=dict)


def case(module: str, *arguments: object, environment: dict[str, str] | None = None, tree: bool = False) -> Measured:
    """Run `python -m benchmarks.<module> arguments…`, whose last printed line is JSON with its measurements.

    With `tree`, the peak is the sampled sum of the memory of all its processes; otherwise its own peak, from the kernel.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    log = FOLDER / "last.log"
    env = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"} | (environment or {})
    # Images and CI often disable bytecode; then every process compiles its libraries, which must not be measured.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env["PYTHONPYCACHEPREFIX"] = str(FOLDER / "bytecode")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, stderr=out, text=True)
        peak = _Sampled(process.pid) if tree else None
        output, _ = process.communicate()
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-4000:]}{output[-2000:]}"
        )
    found = json.loads(output.strip().splitlines()[-1])
    cpu = found.pop("cpu_seconds", after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return Measured(found.pop("seconds", wall), cpu, peak.end() if peak else found.pop("peak_mb"), found)


def best(runs: list[Measured]) -> Measured:
    """The fastest of several runs: other load on the machine can only add time."""
    return min(runs, key=lambda run: run.seconds)


class Timed:
    """The measurements of a case: `with Timed() as t: …`, then `t.report(rows=…)`."""

    def __enter__(self) -> Timed:
        self.cpu, self.began = _cpu(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu_seconds = time.monotonic() - self.began, _cpu() - self.cpu

    def report(self, **more: object) -> None:
        """Print the line that `case` reads."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            json.dumps({"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "peak_mb": peak, **more}), flush=True
        )


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class _Sampled:
    """The highest sum of a process tree's proportional memory, five times a second."""

    def __init__(self, pid: int) -> None:
        self.pid, self.peak, self.stop = pid, 0.0, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def end(self) -> float:
        self.stop.set()
        self.thread.join()
        return self.peak

    def _run(self) -> None:
        while not self.stop.wait(0.2):
            self.peak = max(self.peak, sum(map(_proportional_mb, _tree(self.pid))))


def _tree(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _proportional_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    except (OSError, StopIteration):
        return 0.0
