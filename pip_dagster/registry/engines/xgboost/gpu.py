"""Scoring on a GPU: the data goes there batch by batch, in smaller ones where memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SMALLEST = 2_048
# Words in the errors of CUDA and XGBoost; an error without them is not the device's.
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "bad_alloc", "memoryallocation")
_DEVICE = ("cuda", "gpu", "device ordinal", "nvidia", "cublas", "thrust")


class GpuError(RuntimeError):
    """The GPU cannot score: it is gone, or lacks memory for even the smallest batch. Quotes its error."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether smaller batches may help."""
    text = f"{type(error).__name__} {error}".lower().replace("_", "")
    return any(sign.replace("_", "") in text for sign in _OUT_OF_MEMORY)


def is_of_the_device(error: BaseException) -> bool:
    """Whether the CPU may succeed where the device failed."""
    text = f"{type(error).__module__} {type(error).__name__} {error}".lower()
    return is_out_of_memory(error) or any(sign in text for sign in _DEVICE)


class Batches:
    """Scores matrices in batches as large as the GPU has memory for; a size that was too large is not tried again."""

    def __init__(self) -> None:
        self.rows: int | None = None  # no limit met so far

    def score(self, score: Callable[[Any], np.ndarray], X: np.ndarray) -> np.ndarray:
        """The same as `score(X)`. A row's score does not depend on the batch that it is in.

        Raises:
            GpuError: the device failed. Every other exception is that of `score`.
        """
        import numpy as np

        parts, at = [], 0
        while at < len(X):
            rows = min(self.rows or len(X), len(X) - at)
            try:
                parts.append(score(X[at : at + rows]))
                at += rows
            except Exception as error:
                if is_out_of_memory(error) and rows > SMALLEST:
                    self.rows = max(SMALLEST, rows // 2)
                    _free()
                    continue
                if is_of_the_device(error):
                    what = str(error).split("Stack trace:")[0].strip().replace("\n", " ")
                    raise GpuError(f"the GPU failed on a batch of {rows} rows: {what}") from error
                raise
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def to_device(X: np.ndarray) -> Any:
    """The matrix on the GPU as a CuPy array, which XGBoost scores in place; None without CuPy."""
    try:
        import cupy
    except ImportError:
        return None
    return cupy.asarray(X)


def to_host(scores: Any) -> np.ndarray:
    """Scores as a numpy array, wherever they are."""
    import numpy as np

    return np.asarray(scores.get() if hasattr(scores, "get") else scores)


def _free() -> None:
    """Free the memory that CuPy reserves."""
    import sys

    if cupy := sys.modules.get("cupy"):
        cupy.get_default_memory_pool().free_all_blocks()


def why_no_cuda() -> str | None:
    """Why XGBoost cannot score on a GPU here; None if a probe scored on it."""
    import ctypes

    try:  # first, because it avoids the import of xgboost where there is no GPU
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
    """Score three rows on the GPU and compare with the CPU: a driver that loads may still not work."""
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
