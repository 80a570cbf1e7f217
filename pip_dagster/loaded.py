"""Import libraries without garbage collection, and exempt their objects from it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_loaded: set[str] = set()


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Import inside the block, without garbage collection; then exempt all existing objects from collection.

    Dagster, pandas and XGBoost create half a million objects. Traversing them while more is imported, and again when
    the process ends, took a quarter of the run of a single date.

    Objects that are garbage at that moment are never freed, so this happens once per process for each `what`, not once
    per run.
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
