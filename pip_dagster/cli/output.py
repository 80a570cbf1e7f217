"""What commands print: tables for people, JSON for machines, progress on stderr.

Text for people may hold what a source's rows hold. Characters that a terminal obeys instead of showing them are printed
as escapes, such as `\\x1b`. JSON and CSV stay exact.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

import click

from pip_dagster.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

# A pipe or a log has no width to fit, and a digest that is cut or folded is useless.
_WIDE = 10_000
# A column of texts that wrap is at least as wide as this, or as its longest word.
_LEAST_TEXT = 14


def echo(text: str, *, err: bool = False) -> None:
    """Print sentences; on a terminal they break between words. Lines that are indented, such as commands, do not."""
    width = terminal_width(sys.stderr if err else sys.stdout)
    for line in printable(text).split("\n"):
        click.echo("\n".join(_wrapped(line, width)) if width and not line.startswith(" ") else line, err=err)


def progress(text: str) -> None:
    """Report progress on stderr, so that a result on stdout stays whole."""
    echo(text, err=True)


def terminal_width(stream: TextIO | None = None) -> int | None:
    """The columns of the terminal; None for a pipe or a file, which have no width to fit."""
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else None


def show_table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    boxed: bool = True,
    optional: Sequence[str] = (),
) -> None:
    """Print a table that fits the terminal; numbers to the right. No value is cut and no word is broken.

    Where it is too wide, it loses its lines, then the columns that are empty or `optional`; its texts wrap; and at last
    each row becomes a block of lines, one for each value.
    """
    listed = [list(row) for row in rows]
    width = terminal_width()
    texts = [[cell(value) for value in row] for row in listed]
    table = _Table([*map(printable, columns)], texts, _numeric(listed, len(columns)))
    title = printable(title) if title else None
    if width is None or table.natural + (3 * len(columns) + 1 if boxed else 2 * len(columns) - 2) <= width:
        table.show(title, boxed=boxed)
        return
    if len(columns) > 2:
        empty = [name for i, name in enumerate(columns) if not any(row[i] for row in table.rows)]
        table = table.without(empty)
        left_out = [] if table.fits(width) else [name for name in optional if name in table.columns]
        table = table.without(left_out)
    else:
        left_out = []
    if table.fits(width):
        table.show(title, boxed=False, width=width)
    else:
        table.show_blocks(title, width)
    if left_out:
        echo(f"Too narrow for {', '.join(left_out)}: widen the terminal, or use --json.")


def _numeric(rows: Sequence[Sequence[Any]], columns: int) -> list[bool]:
    return [{type(row[i]) for row in rows} - {type(None)} <= {int, float} for i in range(columns)]


@dataclass(frozen=True)
class _Table:
    """The texts of a table, and which columns are numbers."""

    columns: list[str]
    rows: list[list[str]]
    numeric: list[bool]

    def without(self, names: Collection[str]) -> _Table:
        """The other columns."""
        kept = [i for i, name in enumerate(self.columns) if name not in names]
        rows = [[row[i] for i in kept] for row in self.rows]
        return _Table([self.columns[i] for i in kept], rows, [self.numeric[i] for i in kept])

    @cached_property
    def widths(self) -> list[tuple[int, int]]:
        """For each column the least width, in which no word is broken, and the one in which nothing wraps."""
        found = []
        for i, name in enumerate(self.columns):
            texts = [name, *(row[i] for row in self.rows)]
            natural = max(_length(line) for text in texts for line in text.split("\n"))
            words = max((_length(word) for text in texts for word in text.split()), default=0)
            found.append((max(words, min(natural, _LEAST_TEXT)), natural))
        return found

    @property
    def natural(self) -> int:
        """The width in which nothing wraps, without what is between the columns."""
        return sum(natural for _, natural in self.widths)

    def fits(self, width: int) -> bool:
        """Whether no word has to be broken, two spaces between the columns."""
        return sum(least for least, _ in self.widths) + 2 * (len(self.columns) - 1) <= width

    def shared(self, width: int) -> list[int]:
        """The columns' widths: those that lack least get what they lack first."""
        given = [least for least, _ in self.widths]
        left = width - 2 * (len(given) - 1) - sum(given)
        for i in sorted(range(len(given)), key=lambda i: self.widths[i][1] - self.widths[i][0]):
            more = min(left, self.widths[i][1] - given[i])
            given[i], left = given[i] + more, left - more
        return given

    def show(self, title: str | None, *, boxed: bool, width: int | None = None) -> None:
        """Print it side by side."""
        from rich.box import HEAVY_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(
            title=title,
            title_justify="left",
            box=HEAVY_HEAD if boxed else None,
            pad_edge=boxed,
            show_header=any(self.columns),
            header_style="bold",
        )
        widths = self.shared(width) if width else [None] * len(self.columns)
        for name, numeric, given in zip(self.columns, self.numeric, widths, strict=True):
            table.add_column(name, justify="right" if numeric else "left", overflow="fold", width=given)
        for row in self.rows:
            table.add_row(*row)
        _console(Console).print(table, highlight=False)

    def show_blocks(self, title: str | None, width: int) -> None:
        """Print a block of `name  value` for each row; of a table of names and values, a line for each."""
        if title:
            click.echo("\n".join(_wrapped(title, width)))
        pairs = len(self.columns) == 2
        blocks = (
            [self.rows] if pairs else [[[*each] for each in zip(self.columns, row, strict=True)] for row in self.rows]
        )
        for n, block in enumerate(blocks):
            if n:
                click.echo()
            shown = [(name, value) for name, value in block if value or pairs]
            indent = max((_length(name) for name, _ in shown), default=0) + 2
            for name, value in shown:
                _show_value(name, value, indent, width)


def _show_value(name: str, value: str, indent: int, width: int) -> None:
    """A value beside its name, or below it where a word of it would have to be broken."""
    if any(_length(word) > width - indent for word in value.split()):
        click.echo(name)
        name, indent = "", 2
    for n, line in enumerate(_wrapped(value, width - indent)):
        click.echo(f"{'' if n else name:<{indent}}{line}".rstrip())


def _wrapped(text: str, width: int) -> list[str]:
    """The lines of a text; a word is broken only if it is longer than a line."""
    from rich.console import Console
    from rich.text import Text

    return [str(line).rstrip() for line in Text(text).wrap(Console(width=width), width)] or [""]


def _length(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _console(kind: type[Console]) -> Console:
    width = terminal_width()
    return kind(width=width or _WIDE, no_color=width is None, markup=False, emoji=False)


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


def show_bytes(data: bytes) -> None:
    """Print a file as it would be written, whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


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
