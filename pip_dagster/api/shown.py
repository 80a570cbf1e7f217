"""How values look in a console and in a notebook: a table of what is known already. Showing one reads nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

from pip_dagster.printable import printable

_MOST_ROWS, _MOST_TEXT = 30, 120


def silent(text: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class ShownTable:
    """A title, the names of the columns, and rows of values."""

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()

    @property
    def more(self) -> str:
        """How many rows are not shown; empty where all are."""
        return f"… and {len(self.rows) - _MOST_ROWS:,} more" if len(self.rows) > _MOST_ROWS else ""

    def cells(self) -> list[list[str]]:
        """The shown rows as text."""
        return [[_text(value) for value in row] for row in self.rows[:_MOST_ROWS]]


class Shown(ABC):
    """A value with a table as its text, and the same as HTML in notebooks."""

    @abstractmethod
    def _table(self) -> ShownTable: ...

    def __repr__(self) -> str:
        table = self._table()
        lines, cells = [table.title], table.cells()
        if cells:
            widths = [max(map(len, column)) for column in zip(table.columns, *cells, strict=True)]
            lines += [
                "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
                for row in (list(table.columns), *cells)
            ]
        return "\n".join([*lines, *(["  " + table.more] if table.more else [])])

    def _repr_html_(self) -> str:
        table = self._table()
        head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
        rows = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in table.cells())
        body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
        more = f"<p>{escape(table.more)}</p>" if table.more else ""
        return f"<p><strong>{escape(printable(table.title))}</strong></p>{body}{more}"


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}" + (f"{value:%z}" if value.tzinfo else "")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    text = " ".join(printable(str(value)).split())
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"
