"""Tables for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# Wide enough for a pipe or a file never to lose a column.
_WIDE = 240


def console() -> Console:
    """A console that fits the terminal; where there is none, one that truncates nothing."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_WIDE, no_color=True)


def show_table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; numbers to the right."""
    from rich.markup import escape
    from rich.table import Table

    listed = [list(row) for row in rows]
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        numeric = any(isinstance(row[i], int | float) for row in listed)
        table.add_column(escape(column), justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        table.add_row(*(cell(value) for value in row))
    console().print(table)


def cell(value: Any) -> str:
    """A value in a table."""
    from rich.markup import escape

    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    return escape(str(value))


def show_json(value: Any) -> None:
    """Print JSON; instants in ISO 8601, what JSON cannot hold (NaN, infinities) as null."""
    print(json.dumps(_plain(value), ensure_ascii=False, indent=2, default=str))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value
