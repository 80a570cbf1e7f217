"""How values are written in tables and sentences of commands: one format for figures, counts, times and durations."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

from pip_dagster.printable import printable


class Share(float):
    """A share of a whole, written in percent."""


class Seconds(float):
    """A duration."""


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Share):
        return f"{value:.1%}"
    if isinstance(value, Seconds):
        return duration(value)
    if isinstance(value, float):
        return figure(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return moment(value)
    return printable(str(value)).replace("\t", "    ")


def exact(value: Any) -> str:
    """A value of a query: all digits, numbers without separators, instants with microseconds if they have some."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}" + (f".{value:%f}" if value.microsecond else "") + _zone(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return cell(value)


def figure(value: float) -> str:
    """A score, rate or other measure: four digits, and all of those before the point."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def moment(at: datetime | None) -> str:
    """An instant to the second, in UTC; one without a zone as it is."""
    if at is None:
        return ""
    return f"{at.astimezone(UTC) if at.tzinfo else at:%Y-%m-%d %H:%M:%S}" + (" UTC" if at.tzinfo else "")


def duration(seconds: float) -> str:
    """Seconds for people: `17 ms`, `1.2 s`, `40 s`, `3 min 20 s`, `2 h 5 min`."""
    if 0 < seconds < 1:
        return f"{max(1, round(seconds * 1000))} ms"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.2g} s" if 0 < seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def single(value: float | None) -> float | None:
    """A number of 32 bits with the fewest digits that name it: 0.2, where its 64 bits print as 0.20000000298023224."""
    if value is None or value - value != 0:
        return value
    bits = struct.pack("f", value)
    return next(short for digits in range(6, 10) if struct.pack("f", short := float(f"{value:.{digits}g}")) == bits)


def _zone(at: datetime) -> str:
    """UTC, or the offset from it."""
    offset = at.utcoffset()
    if offset is None:
        return ""
    return f" {at:%z}" if offset else " UTC"
