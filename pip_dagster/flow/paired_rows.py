"""Rows that two models scored, from a relation as `statistics.agreement` reads it to the arrays of the statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pip_dagster.statistics.interval import PairedRows

if TYPE_CHECKING:
    import numpy as np

# A row without its unit is a unit of its own.
UNIT = "coalesce(pip_unit, concat_ws(' ', partition_key, pip_key))"


def paired_select(outputs: int) -> str:
    """SQL of the columns that `paired_rows` reads, but for `pip_outcome`: both models' scores, unit and partition."""
    scores = [f"pip_{of}_{i}" for of in ("champion", "candidate") for i in range(outputs)]
    codes = (f"dense_rank() OVER (ORDER BY {by}) - 1 AS {name}" for by, name in ((UNIT, "u"), ("partition_key", "d")))
    return ", ".join([*scores, *codes])


def paired_rows(columns: Mapping[str, Any], outputs: int) -> PairedRows:
    """The rows from fetched columns; those that are absent are zeros."""
    import numpy as np

    def column(name: str) -> np.ndarray:
        return np.asarray(columns[name]) if name in columns else np.zeros(len(columns.get("u", ())))

    def scores(of: str) -> np.ndarray:
        each = [column(f"pip_{of}_{i}") for i in range(outputs)]
        return each[0] if len(each) == 1 else np.column_stack(each)

    unit, day = (column(name).astype(np.int64) for name in ("u", "d"))
    return PairedRows(column("pip_outcome"), scores("champion"), scores("candidate"), unit, day)
