"""What a process has loaded is there until it ends: the garbage collector need not look through it again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_loaded: set[str] = set()


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Import inside, without garbage collection; the collector then leaves alone whatever objects there are.

    Dagster, pandas and XGBoost are half a million. To look through them while more is loaded, and again when the
    process ends, took a quarter of the run of a single date.

    What is garbage just then is never freed. So this happens once a process for each `what` that is loaded, not a run.
    """
    if what in _loaded:
        yield
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
    _loaded.add(what)
    gc.freeze()
