"""One measurement is one new process with its children: seconds, CPU seconds and peak memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.data import FOLDER, MEASURED, REPOSITORY

_SPAWN = Path(__file__).with_name("spawn.py")
# Where a measured process reports what it timed itself.
_REPORT = "PIP_DAGSTER_BENCHMARKS_REPORT"


@dataclass(frozen=True)
class Measured:
    """One measurement: what the process timed itself, or else the whole process; its own peak memory in MB."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    reported: dict[str, Any] = field(default_factory=dict)


def case(
    function: str, *arguments: object, environment: Mapping[str, str] | None = None, tree: bool = False
) -> Measured:
    """Measure `function` (`benchmarks.groups.x:process`), which is given the arguments as text. See `command`."""
    words = [sys.executable, "-m", "benchmarks.process", function, *map(str, arguments)]
    return command(
        words, environment={"PYTHONPATH": str(REPOSITORY), MEASURED: "1"} | dict(environment or {}), tree=tree
    )


def pip_dagster(root: Path, *words: str, environment: Mapping[str, str] | None = None) -> Measured:
    """Measure a command of `pip-dagster` on the project in `root`."""
    of_project = {"PYTHONPATH": f"{root}{os.pathsep}{REPOSITORY}", "PIP_DAGSTER_PROJECT": str(root)}
    arguments = [sys.executable, "-m", "pip_dagster.cli.main", *words]
    return command(arguments, cwd=root, environment=of_project | dict(environment or {}))


def command(
    words: Sequence[str], *, cwd: Path = REPOSITORY, environment: Mapping[str, str] | None = None, tree: bool = False
) -> Measured:
    """Measure a command in a new process, which must succeed. Its output is in `last.log` beside the data.

    The peak is that of its largest process; with `tree`, the sampled sum of the memory of all of them.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    of = f"{os.getpid()}.{threading.get_ident()}"  # several may be measured at once
    log, kernel, own = (FOLDER / f"last.{of}.{name}" for name in ("log", "kernel", "own"))
    env = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    env |= {"PYTHONWARNINGS": "ignore", _REPORT: str(own)} | dict(environment or {})
    # Images and CI often disable bytecode; then every process compiles its libraries, which must not be measured.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env["PYTHONPYCACHEPREFIX"] = str(FOLDER / "bytecode")
    try:
        with log.open("w") as out:
            spawner = [sys.executable, "-I", "-S", str(_SPAWN), str(kernel), *words]
            process = subprocess.Popen(spawner, cwd=cwd, env=env, stdout=out, stderr=subprocess.STDOUT)
            sampled = _Sampled(process.pid) if tree else None
            process.wait()
            peak = sampled.end() if sampled else None
        if process.returncode:
            raise SystemExit(f"{' '.join(words)} ended with {process.returncode}:\n{log.read_text()[-6000:]}")
        found = json.loads(kernel.read_text())
        reported = json.loads(own.read_text()) if own.is_file() else {}
        found |= {name: reported.pop(name) for name in ("seconds", "cpu_seconds") if name in reported}
        return Measured(found["seconds"], found["cpu_seconds"], peak or found["peak_mb"], reported)
    finally:
        for file in (kernel, own):
            file.unlink(missing_ok=True)
        if log.is_file():
            log.replace(FOLDER / "last.log")


def in_turns(turns: int, *runs: Callable[[], Measured]) -> list[list[Measured]]:
    """The measurements of each, one after the other in each turn, so that other load on the machine affects all."""
    found: list[list[Measured]] = [[] for _ in runs]
    for _ in range(turns):
        for run, into in zip(runs, found, strict=True):
            into.append(run())
    return found


def best(runs: Sequence[Measured]) -> Measured:
    """The fastest of several runs: other load on the machine can only add time."""
    return min(runs, key=lambda run: run.seconds)


def least_cpu(runs: Sequence[Measured]) -> float:
    """The fewest CPU seconds of several runs."""
    return min(run.cpu_seconds for run in runs)


class Timed:
    """What a process times itself, without its imports and preparations: `with Timed() as t: …`, then `t.report()`."""

    def __enter__(self) -> Timed:
        self.cpu, self.began = _cpu(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu_seconds = time.monotonic() - self.began, _cpu() - self.cpu

    def report(self, **more: object) -> None:
        """Report it to the process that measures, with more values of its own."""
        found = json.dumps({"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, **more})
        if _REPORT in os.environ:
            Path(os.environ[_REPORT]).write_text(found)
        else:
            print(found, flush=True)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class _Sampled:
    """The highest sum of the proportional memory of a process's descendants, five times a second."""

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
    return found - {root}


def _proportional_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    except (OSError, StopIteration):
        return 0.0
