"""One sentence for an error that no command foresaw: what happened, where, and what to do."""

from __future__ import annotations

import os

from pip_dagster.warehouse.faults import remedy

VARIABLE = "PIP_DAGSTER_DEBUG"


def sentence(error: BaseException) -> str:
    """The error for people; the traceback is for who sets PIP_DAGSTER_DEBUG."""
    text = str(error).strip().split("\n\n")[0]
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "OutOfMemoryException":
        text = "Memory is not sufficient. Free some, or allow more with PIP_DAGSTER_MEMORY_LIMIT, such as 8GB"
    elif isinstance(error, UnicodeError):
        text = f"A text is not in UTF-8: {text}. Save the file that holds it in UTF-8"
    elif isinstance(error, OSError) or type(error).__module__ == "_duckdb":
        text = f"{text or kind}. {remedy(text)}".removesuffix(".")
    else:
        text = f"Unexpected {kind}: {text or 'without a message'}. Please report it"
    return f"{text}. {VARIABLE}=1 shows the traceback."


def debugging() -> bool:
    """Whether the user wants tracebacks."""
    return bool(os.environ.get(VARIABLE))
