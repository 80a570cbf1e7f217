"""What a process has loaded is there until it ends: the garbage collector need not look through it again and again."""

from __future__ import annotations

import gc
from functools import cache


@cache  # what is garbage just then is never freed: so once a process for each stage of its loading
def keep_loaded(what: str) -> None:
    """Take all objects that there are by now out of garbage collection; `what` names what was loaded.

    Dagster, pandas and XGBoost are half a million objects. To look through them while more is loaded, and twice when the
    process ends, took a fifth of the run of a single date.
    """
    gc.freeze()
