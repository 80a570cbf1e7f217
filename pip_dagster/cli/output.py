"""What commands print: tables for people, JSON for machines, progress on stderr.

Text for people may hold what a source's rows hold. Characters that a terminal obeys instead of showing them are printed
as escapes, such as `\\x1b`. JSON and CSV stay exact.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

# A pipe or a log has no width to fit, and a digest that is cut or folded is useless.
_WIDE = 10_000


# Control characters except tab and line feed, overrides of the direction of text, other line ends, lone surrogates.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with every character that a terminal would obey as an escape."""
    return _OBEYED.sub(lambda found: repr(found[0])[1:-1], text)


def echo(text: str, *, err: bool = False) -> None:
    """Print a line for people."""
    click.echo(printable(text), err=err)


def progress(text: str) -> None:
    """Report progress on stderr, so that a result on stdout stays whole."""
    echo(text, err=True)


def show_table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, boxed: bool = True) -> None:
    """Print a table that fits the terminal; numbers to the right."""
    from rich.box import HEAVY_HEAD
    from rich.console import Console
    from rich.table import Table

    listed = [list(row) for row in rows]
    table = Table(
        title=printable(title) if title else None,
        title_justify="left",
        box=HEAVY_HEAD if boxed else None,
        pad_edge=boxed,
        show_header=any(columns),
        header_style="bold",
    )
    for i, column in enumerate(columns):
        numeric = {type(row[i]) for row in listed} - {type(None)} <= {int, float}
        table.add_column(printable(column), justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        table.add_row(*map(cell, row))
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else _WIDE, no_color=not terminal, markup=False, emoji=False)
    # Lines and padding would take a third of 80 columns.
    if console.measure(table, options=console.options.update(width=_WIDE)).maximum > console.width:
        table.box, table.pad_edge = None, False
    console.print(table, highlight=False)


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    return printable(str(value))


def show_json(value: Any) -> None:
    """Print JSON; instants in ISO 8601, what JSON cannot hold (NaN, infinities) as null."""
    # Where standard output cannot hold every character, JSON's own escapes can.
    is_unicode = (sys.stdout.encoding or "utf-8").lower().replace("-", "").startswith("utf")
    print(json.dumps(_plain(value), ensure_ascii=not is_unicode, indent=2, default=str))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value
