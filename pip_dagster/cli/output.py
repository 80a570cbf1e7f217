"""What commands print: tables for people, JSON for machines, progress on stderr.

Text for people may hold what a source's rows hold. Characters that a terminal obeys instead of showing them are printed
as escapes, such as `\\x1b`. JSON and CSV stay exact.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from pip_dagster.cli.cells import cell
from pip_dagster.cli.table import lay_out, wrapped
from pip_dagster.printable import printable


def echo(text: str, *, err: bool = False) -> None:
    """Print sentences; on a terminal they break between words. Lines that are indented, such as commands, do not."""
    width = terminal_width(sys.stderr if err else sys.stdout)
    for line in printable(text).split("\n"):
        if width and not line.startswith(" "):  # a path stays whole, to be copied
            line = "\n".join(textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False))
        click.echo(line, err=err)


def near(path: Path) -> Path:
    """The path as a person in the working directory writes it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def progress(text: str) -> None:
    """Report progress on stderr, so that a result on stdout stays whole."""
    echo(text, err=True)


def terminal_width(stream: TextIO | None = None) -> int | None:
    """The columns of the terminal, or for results those that COLUMNS names; None for a pipe or a file without it."""
    stream = stream or sys.stdout
    if stream.isatty():
        return shutil.get_terminal_size().columns
    wanted = os.environ.get("COLUMNS", "") if stream is sys.stdout else ""
    return int(wanted) if wanted.isdecimal() and int(wanted) else None


def show_table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    text: Callable[[Any], str] = cell,
) -> None:
    """Print a table that fits the terminal; numbers to the right. No value is cut and no word is broken."""
    width = terminal_width()
    table = lay_out(columns, rows, width, text=text)
    if title:
        title = printable(title)
        heading = wrapped(title, width) if width else [title]
        click.echo(click.style("\n".join(heading), bold=True))
    for line in table.header:
        click.echo(click.style(line, bold=True))
    if table.header and width:
        click.echo("  ".join(("─" if _is_unicode() else "-") * each for each in table.widths))
    for line in (*table.lines, *([""] if table.below else []), *table.below):
        click.echo(line)
    if table.left_out:
        echo(f"Too narrow for {', '.join(table.left_out)}: widen the terminal, or use --json.")


def show_pairs(title: str | None, pairs: Iterable[tuple[str, Any]]) -> None:
    """Print names with their values; those without a value are left out."""
    show_table(title, ["", ""], [pair for pair in pairs if pair[1] is not None])


def show_bytes(data: bytes) -> None:
    """Print a file as it would be written, whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def show_json(value: Any) -> None:
    """Print JSON; instants in ISO 8601, what JSON cannot hold (NaN, infinities) as null."""
    # Where standard output cannot hold every character, JSON's own escapes can.
    print(json.dumps(plain(value), ensure_ascii=not _is_unicode(), indent=2, default=str))


def _is_unicode() -> bool:
    return (sys.stdout.encoding or "utf-8").lower().replace("-", "").startswith("utf")


def plain(value: Any) -> Any:
    """What JSON holds of a value: instants in ISO 8601, NaN and infinities as null."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value
