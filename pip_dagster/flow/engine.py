"""What scores: how many threads this process really has, which device, which versions of the libraries."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pip_dagster.errors import DeclarationError


def available_threads(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Threads worth starting: the fewest of the CPUs this process may run on and the share its container has.

    More threads than that cost up to five times the time where cores are contended.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _cgroup_cpus(cgroup) or allowed))


def _cgroup_cpus(root: Path) -> int | None:
    """The CPU quota of cgroup v2, or v1, in whole CPUs, rounded up; None without one."""
    try:
        quota, period = (root / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in {"max", "-1"}:
        return None
    return max(1, math.ceil(int(quota) / int(period)))


def library_versions() -> dict[str, str]:
    """The versions a score may depend on."""
    names = ("pip-dagster", "xgboost", "duckdb", "numpy")
    found = {name: _version(name) for name in names}
    return found | {"python": platform.python_version(), "machine": platform.machine()}


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError

    try:
        return version(name)
    except PackageNotFoundError:
        return _version("xgboost-cpu") if name == "xgboost" else "unknown"


@dataclass(frozen=True)
class Device:
    """Where the model scores, and why not on the GPU where that was asked for or hoped for."""

    name: Literal["cpu", "cuda"]
    reason: str


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> Device:
    """The device to score on. `auto` takes a GPU that has proven itself with one small prediction.

    Raises:
        DeclarationError: `cuda` was declared and cannot be met; says why.

    """
    if wanted == "cpu":
        return Device("cpu", "declared")
    obstacle = _why_no_cuda()
    if obstacle is None:
        return Device("cuda", "declared" if wanted == "cuda" else "a GPU is there and scored a probe")
    if wanted == "cuda":
        raise DeclarationError(
            f"scoring.device is cuda, which this machine cannot do: {obstacle}. Mend that, or declare `device: auto`."
        )
    return Device("cpu", f"no GPU: {obstacle}")


def _why_no_cuda() -> str | None:
    import ctypes

    try:  # asked first: it spares the import of xgboost where there is no GPU
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver finds no device"
    import xgboost

    if not xgboost.build_info().get("USE_CUDA"):
        return "this build of xgboost has no CUDA"
    return _probe_cuda()


def _probe_cuda() -> str | None:
    """Score three rows on the GPU and compare with what the CPU says; a driver that loads may still not work."""
    import numpy as np
    import xgboost

    try:
        X = np.array([[0.0], [1.0], [2.0]], dtype=np.float32)
        data = xgboost.DMatrix(X, label=[0.0, 1.0, 1.0])
        booster = xgboost.train({"max_depth": 1, "nthread": 1}, data, 1)
        expected = booster.predict(data)
        booster.set_param({"device": "cuda:0"})
        if not np.allclose(booster.predict(xgboost.DMatrix(X)), expected, atol=1e-6):
            return "a probe scored on the GPU differs from the CPU"
    except Exception as error:
        return f"a probe on the GPU failed: {str(error).splitlines()[0]}"
    return None
