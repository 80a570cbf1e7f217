"""CSV files: columns are found by the names in each file's first line."""

from __future__ import annotations

import csv
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.errors import SourceError
from pip_dagster.flow.origins.listing import reaching, state_of_files
from pip_dagster.flow.origins.opened import Opened, Opening
from pip_dagster.flow.origins.text_rows import FILE, Reading, TextRows, escaped
from pip_dagster.quoted import first
from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from pip_dagster.declaration.source import Source

EXTENSIONS = ()

_DELIMITERS = (",", ";", "\t", "|")
_LINE = re.compile(r"CSV Error on Line: (\d+)")
_FILE = re.compile(r"^\s*file = (.+)$", re.MULTILINE)
# DuckDB's words → ours.
_WRONG = {
    "Expected Number of Columns": "has another number of fields than its first line; quote values with a delimiter",
    "unterminated quote": "has a quote that is not closed, or not at a value's end",
    "Invalid unicode": "is not UTF-8",
    "Maximum line size": "is longer than DuckDB reads",
}


def open_origin(at: Opening, name: str, source: Source) -> Opened:
    """Parse the files into a temporary table.

    Raises:
        SourceError: a file lacks a column or does not fit; names file, line and column.
    """
    place = source.csv or ""
    with reaching(at.con, place, at.where(name, source)):
        rows = TextRows(at, name, source, place)
        groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for file in rows.files:
            groups.setdefault(_header(rows, file), []).append(escaped(file))
        for (delimiter, header), files in groups.items():
            numbers = {each.lower(): number for number, each in enumerate(header)}
            values = {
                column.name: f"c{numbers[column.name.lower()]}"
                for column in rows.columns
                if column.name.lower() in numbers
            }
            rows.insert(_Csv(files, values, delimiter=delimiter, width=len(header)))
    return Opened(rows.table)


def identity(root: Path, source: Source) -> str | None:
    """Size and time of the files on a server; `unchanged` reads those of this machine."""
    return state_of_files(source.csv or "")


def trouble(error: BaseException) -> str:
    """Nothing: its rows are read from a temporary table."""
    return ""


@dataclass(frozen=True)
class _Csv(Reading):
    """Files with the same first line."""

    delimiter: str = ","
    width: int = 1

    @property
    def rows(self) -> str:
        columns = ", ".join(f"c{number}: 'VARCHAR'" for number in range(self.width))
        return (
            f"read_csv([{', '.join(map(literal, self.files))}], columns = {{{columns}}}, header = true, "
            f"auto_detect = false, delim = {literal(self.delimiter)}, quote = '\"', escape = '\"', strict_mode = true, "
            f"hive_partitioning = false, filename = '{FILE}')"
        )

    def of_file(self, file: str) -> _Csv:
        return replace(self, files=[escaped(file)])

    def first(self, value: str, test: str) -> str:
        text = ", ".join(f"c{number}" for number in range(self.width))
        return (
            f"WITH numbered AS MATERIALIZED (SELECT row_number() OVER () AS n, concat_ws('', {text}) AS t, * "
            f"FROM {self.rows}), wrong AS (SELECT n, {value} AS v FROM numbered WHERE {test} ORDER BY n LIMIT 1) "
            "SELECT 1 + n + (SELECT coalesce(sum(len(t) - len(replace(t, chr(10), ''))), 0) FROM numbered b "
            "WHERE b.n < wrong.n)::BIGINT, v FROM wrong"
        )

    def unparsed(self, rows: TextRows, error: Exception) -> SourceError:
        text = str(error)
        line, file = _LINE.search(text), _FILE.search(text)
        named = file[1].strip() if file else self._unparsed_file(rows)
        what = next((ours for words, ours in _WRONG.items() if words in text), None)
        if "reached an invalid state" in text:
            return rows.error(named, "cannot be parsed: its lines end in different ways; write all with LF, or CR LF")
        if line and what:
            return rows.error(named, f"cannot be parsed in line {line[1]}, which {what}")
        said = first(error)
        return rows.error(named, f"cannot be parsed{f' in line {line[1]}' if line else ''}. DuckDB says: {said}")

    def _unparsed_file(self, rows: TextRows) -> str:
        """The first file that cannot be parsed, where DuckDB's error names none."""
        import duckdb

        for file in rows.files if len(self.files) > 1 else []:
            with suppress(duckdb.Error):
                if escaped(file) in self.files:
                    rows.con.execute(f"SELECT count(c0) FROM {self.of_file(file).rows}")
                continue
            return file
        return rows.place


def _header(rows: TextRows, file: str) -> tuple[str, tuple[str, ...]]:
    """The delimiter and the column names of a file."""
    line = rows.first_line(file)
    wanted = {column.name.lower(): column for column in rows.columns}
    if not line:
        raise rows.error(file, "is empty; expected a first line with the names of its columns")
    if line.count('"') % 2:  # DuckDB may take the wrong kind of line end from it, and find no rows
        raise rows.error(file, "has a quote in line 1 that is not closed there; give its columns names of one line")
    best: tuple[str, tuple[str, ...]] = (",", ())
    for delimiter in _DELIMITERS:
        header = tuple(next(csv.reader([line], delimiter=delimiter), []))
        found = (delimiter, header)
        if len(wanted.keys() & {each.lower() for each in header}) > len(
            wanted.keys() & {each.lower() for each in best[1]}
        ):
            best = found
    delimiter, header = best if best[1] else (",", tuple(next(csv.reader([line]), [])))
    folded = [each.lower() for each in header]
    if missing := [column.name for name, column in wanted.items() if name not in folded and not column.optional]:
        # Of a file without a header, the first line is a row.
        has = ", ".join(header)[:300] if wanted.keys() & {*folded} else "none of them"
        raise rows.error(
            file,
            f"lacks {', '.join(missing)} in line 1, which has: {has}. Correct the file or "
            "`columns`; a column that some files lack is declared as in `VARCHAR optional`",
        )
    if twice := next((name for name in folded if folded.count(name) > 1 and name in wanted), None):
        raise rows.error(file, f"has two columns {twice} in line 1; rename one")
    return delimiter, header
