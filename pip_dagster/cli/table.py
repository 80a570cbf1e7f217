"""The layout of tables: lines that fit a width, in which no key, date or number is broken."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING, Any

from pip_dagster.cli.cells import cell
from pip_dagster.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

# A column of texts that wrap is at least as wide as this, or as its longest word.
_LEAST_TEXT = 14
# A text that needs more lines than this beside the others goes below the table.
_MOST_LINES = 2


class Heading(str):
    """The header of a column, in words, with what becomes of the column where the table is too wide.

    Attributes:
        optional: it is left out; of several, the right one first.
        below: its values are listed below the table, each after its row's first value, if they need many lines in it.
            Without values it is never shown.
        whole: its values do not wrap. Numbers, dates and texts without blanks never do.
    """

    optional = below = whole = False

    def __new__(cls, name: str, *, optional: bool = False, below: bool = False, whole: bool = False) -> Heading:
        """The name with its attributes."""
        self = super().__new__(cls, name)
        self.optional, self.below, self.whole = optional, below, whole
        return self


@dataclass(frozen=True)
class Layout:
    """The lines of a table with its columns' widths, the lines below it, and the columns that were left out."""

    header: list[str]
    lines: list[str]
    widths: list[int] = field(default_factory=list)
    below: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def lay_out(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    width: int | None,
    *,
    text: Callable[[Any], str] = cell,
) -> Layout:
    """Lay a table out for a width; None has room for everything.

    Where it is too wide, it loses the columns that are empty; then texts go below it, columns are left out, texts wrap;
    and at last each row becomes a block of lines, one for each value.
    """
    table = Table.of(columns, rows, text)
    table = table.without([i for i, column in enumerate(table.columns) if column.below and not table.has(i)])
    if width is None or table.natural <= width:
        return Layout(table.header(table.naturals), table.side_by_side(table.naturals), table.naturals)
    if any(table.columns):
        table = table.without([i for i in range(len(table.columns)) if not table.has(i)])
    moved = [i for i, column in enumerate(table.columns) if column.below]
    narrow, left_out = table.narrowed(width)
    if moved and not (narrow.fits(width) and narrow.lines_of_below(width) <= _MOST_LINES):
        narrow, left_out = table.without(moved).narrowed(width)
    else:
        moved = []
    if not narrow.fits(width):
        return Layout([], [*table.blocks(width)])
    widths = narrow.shared(width)
    below = [line for i in moved for line in table.listed(i, width)]
    return Layout(narrow.header(widths), narrow.side_by_side(widths), widths, below, left_out)


@dataclass(frozen=True)
class Table:
    """The texts of a table, and which columns are of numbers or of other values that never wrap."""

    columns: list[Heading]
    rows: list[list[str]]
    numeric: list[bool]
    whole: list[bool]

    @classmethod
    def of(cls, columns: Sequence[str], rows: Iterable[Sequence[Any]], text: Callable[[Any], str]) -> Table:
        """The texts of the values."""
        declared = [_declared(each) for each in columns]
        listed = [list(row) for row in rows]
        kinds = [{type(row[i]) for row in listed} - {type(None)} for i in range(len(declared))]
        numeric = [all(issubclass(kind, int | float) and kind is not bool for kind in each) for each in kinds]
        whole = [column.whole or str not in each for column, each in zip(declared, kinds, strict=True)]
        whole[:1] = [whole[0] or not any(declared)] if declared else []
        return cls(declared, [[text(value) for value in row] for row in listed], numeric, whole)

    def without(self, left_out: Collection[int]) -> Table:
        """The other columns."""
        kept = [i for i in range(len(self.columns)) if i not in left_out]
        rows = [[row[i] for i in kept] for row in self.rows]
        columns, numeric = [self.columns[i] for i in kept], [self.numeric[i] for i in kept]
        return Table(columns, rows, numeric, [self.whole[i] for i in kept])

    def has(self, index: int) -> bool:
        """Whether a column has a value."""
        return any(row[index] for row in self.rows)

    @cached_property
    def naturals(self) -> list[int]:
        """For each column the width in which nothing wraps."""
        return [
            max(length(line) for text in (column, *(row[i] for row in self.rows)) for line in text.split("\n"))
            for i, column in enumerate(self.columns)
        ]

    @cached_property
    def least(self) -> list[int]:
        """For each column the least width, in which no word is broken and nothing that has to stay whole wraps."""
        found = []
        for i, column in enumerate(self.columns):
            header = max(map(length, column.split()), default=0)
            parts = [part for row in self.rows for part in (row[i].split("\n") if self.whole[i] else row[i].split())]
            words = max(map(length, parts), default=0)
            longest = max((length(row[i]) for row in self.rows), default=0)
            found.append(max(header, words, 0 if self.whole[i] else min(longest, _LEAST_TEXT)))
        return found

    @property
    def natural(self) -> int:
        """The width in which nothing wraps."""
        return sum(self.naturals) + 2 * (len(self.columns) - 1)

    def fits(self, width: int) -> bool:
        """Whether no word has to be broken."""
        return sum(self.least) + 2 * (len(self.columns) - 1) <= width

    def narrowed(self, width: int) -> tuple[Table, list[str]]:
        """Without the optional columns for which there is no room, and those."""
        narrow, left_out = self, list[str]()
        while not narrow.fits(width) and any(column.optional for column in narrow.columns):
            last = max(i for i, column in enumerate(narrow.columns) if column.optional)
            left_out.insert(0, narrow.columns[last])
            narrow = narrow.without([last])
        return narrow, left_out

    def lines_of_below(self, width: int) -> int:
        """How many lines the longest text needs that may go below."""
        widths = self.shared(width)
        below = [i for i, column in enumerate(self.columns) if column.below]
        return max((len(wrapped(row[i], widths[i])) for row in self.rows for i in below), default=0)

    def shared(self, width: int) -> list[int]:
        """The columns' widths: those that lack least get what they lack first."""
        given = [*self.least]
        left = width - 2 * (len(given) - 1) - sum(given)
        for i in sorted(range(len(given)), key=lambda i: self.naturals[i] - given[i]):
            more = min(left, self.naturals[i] - given[i])
            given[i], left = given[i] + more, left - more
        return given

    def header(self, widths: Sequence[int]) -> list[str]:
        """The names; none if no column has one."""
        return [*self._lines(self.columns, widths)] if any(self.columns) else []

    def side_by_side(self, widths: Sequence[int]) -> list[str]:
        """The rows."""
        return [line for row in self.rows for line in self._lines(row, widths)]

    def _lines(self, row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
        cells = [wrapped(text, width) for text, width in zip(row, widths, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            padded = (
                " " * (width - length(part)) + part if right else part + " " * (width - length(part))
                for part, width, right in zip(parts, widths, self.numeric, strict=True)
            )
            yield "  ".join(padded).rstrip()

    def listed(self, index: int, width: int) -> Iterator[str]:
        """The texts of a column, each after the first values of its rows."""
        yield f"{self.columns[index]}:"
        for text, rows in groupby(self.rows, key=lambda row: row[index]):
            names = [row[0] for row in rows]
            of = names[0] if names[0] == names[-1] else f"{names[0]} to {names[-1]}"
            if text:
                first, *others = wrapped(f"{of}: {text}", width - 4)
                yield from (f"  {first}", *(f"    {line}" for line in others))

    def blocks(self, width: int) -> Iterator[str]:
        """A block of `name  value` for each row; without a header, a line that names its last value."""
        pairs = not any(self.columns)
        lines = [["  ".join(filter(None, row[:-1])), row[-1]] for row in self.rows] if pairs else []
        named = ([[*each] for each in zip(self.columns, row, strict=True)] for row in self.rows)
        for n, block in enumerate([lines] if pairs else named):
            if n:
                yield ""
            shown = [(name, value) for name, value in block if value or pairs]
            indent = min(max((length(name) for name, _ in shown), default=0), width // 2) + 2
            for name, value in shown:
                yield from _value(name, value, indent, width)


def _declared(column: str) -> Heading:
    of = column if isinstance(column, Heading) else Heading(column)
    return Heading(printable(column), optional=of.optional, below=of.below, whole=of.whole)


def _value(name: str, value: str, indent: int, width: int) -> Iterator[str]:
    """A value beside its name, or below it where a word of it would have to be broken."""
    longest = max(map(length, value.split()), default=0)
    if longest > width - indent or length(name) > indent - 2:
        yield from wrapped(name, width)
        name, indent = "", 2 if longest <= width - 2 else 0
    for n, line in enumerate(wrapped(value, width - indent)):
        yield f"{'' if n else name}{' ' * (indent if n else indent - length(name))}{line}".rstrip()


def wrapped(text: str, width: int) -> list[str]:
    """The lines of a text; a word is broken only if it is longer than a line."""
    if "\n" not in text and length(text) <= width:
        return [text]
    from rich.text import Text

    return [str(line).rstrip() for line in Text(text).wrap(_console(), width)] or [""]


@cache
def _console() -> Console:
    from rich.console import Console

    return Console()


def length(text: str) -> int:
    """The columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
