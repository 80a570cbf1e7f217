"""Figures are rounded once, in the content, so that every machine, page and JSON has the same digits."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

T = TypeVar("T")


def rounded(value: T) -> T:
    """The same with each float at six significant digits; NaN and infinities, which JSON has not, become None."""
    found: T = _rounded(value)
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: _rounded(getattr(value, each.name)) for each in fields(value)})
    if isinstance(value, tuple):
        return tuple(_rounded(each) for each in value)
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return value
