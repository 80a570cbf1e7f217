"""What computes scores: the threads this process has, the device, and the versions of the libraries."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Literal

from pip_dagster.errors import DeclarationError
from pip_dagster.registry.engines import DEFAULT, engine_named
from pip_dagster.warehouse import container


def available_threads() -> int:
    """Threads worth starting: the fewest of the CPUs this process may run on and the share its container has.

    More threads than that cost up to five times the time where cores are contended.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = container.cpus()
    return max(1, min(allowed, math.ceil(quota) if quota else allowed))


def library_versions(engine: str = DEFAULT) -> dict[str, str]:
    """The versions that a score by this engine may depend on."""
    found = {name: _installed(name) for name in ("pip-dagster", "duckdb", "numpy")} | engine_named(engine).libraries()
    return found | {"python": platform.python_version(), "machine": platform.machine()}


@cache
def _installed(package: str) -> str:
    """Its version. Parsing a package's metadata takes milliseconds, a tenth of a small partition's run."""
    return version(package)


@dataclass(frozen=True)
class Device:
    """Where the model scores, and why."""

    name: Literal["cpu", "cuda"]
    reason: str


def choose_device(wanted: Literal["auto", "cpu", "cuda"], engine: str = DEFAULT) -> Device:
    """The device to score on. `auto` chooses a GPU only if the engine has scored a probe on it.

    Raises:
        DeclarationError: `cuda` was declared, and the engine cannot score on a GPU here.
    """
    if wanted == "cpu":
        return Device("cpu", "declared")
    obstacle = engine_named(engine).gpu_obstacle()
    if obstacle is None:
        return Device("cuda", "declared" if wanted == "cuda" else "a GPU is there and scored a probe")
    if wanted == "cuda":
        raise DeclarationError(
            f"scoring.device is cuda, which cannot be used here: {obstacle}. Fix that, or declare `device: auto`."
        )
    return Device("cpu", f"no GPU: {obstacle}")
