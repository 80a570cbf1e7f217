"""JSON files: an object per line, or an array of objects."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.declaration.text_columns import TextColumn
from pip_dagster.errors import SourceError
from pip_dagster.flow.origins.listing import reaching, state_of_files
from pip_dagster.flow.origins.opened import Opened, Opening
from pip_dagster.flow.origins.text_rows import FILE, Reading, TextRows, escaped
from pip_dagster.quoted import first
from pip_dagster.sql.names import WHOLE_NUMBERS, literal, quote

if TYPE_CHECKING:
    from pip_dagster.declaration.source import Source

EXTENSIONS = ()

_MALFORMED = re.compile(r'in file "(.+?)", at byte \d+ in (?:line|record/value) (\d+): (.+?)\.? *$', re.MULTILINE)


def open_origin(at: Opening, name: str, source: Source) -> Opened:
    """Parse the files into a temporary table.

    Raises:
        SourceError: a record lacks a column or does not fit; names file, record and column.
    """
    place = source.json_files or ""
    with reaching(at.con, place, at.where(name, source)):
        rows = TextRows(at, name, source, place)
        for file in rows.files:
            _check_array(rows, file)
        values = {column.name: f"texts.{quote(column.name)}" for column in rows.columns}
        rows.insert(_Json([escaped(file) for file in rows.files], values, counted="record"))
    return Opened(rows.table)


def identity(root: Path, source: Source) -> str | None:
    """Size and time of the files on a server; `unchanged` reads those of this machine."""
    return state_of_files(source.json_files or "")


def trouble(error: BaseException) -> str:
    """Nothing: its rows are read from a temporary table."""
    return ""


def _check_array(rows: TextRows, file: str) -> None:
    """DuckDB reads an array that was cut off after a comma as far as it goes, without an error."""
    first, last = rows.ends(file)
    if first == b"[" and last != b"]":
        raise rows.error(file, "was cut off: its array does not end with a ]; write it again")


def _path(column: TextColumn) -> str:
    return literal(f'$."{column.name}"')


def _is_exact(column: TextColumn) -> bool:
    return column.sql_type in WHOLE_NUMBERS or column.sql_type.startswith("DECIMAL")


@dataclass(frozen=True)
class _Json(Reading):
    @property
    def rows(self) -> str:
        files = ", ".join(map(literal, self.files))
        texts = literal(json.dumps(dict.fromkeys(self.values, "VARCHAR"), ensure_ascii=False))
        objects = f"read_json_objects([{files}], format = 'auto', hive_partitioning = false, filename = '{FILE}')"
        return f"(SELECT json, {FILE}, json_transform(json, {texts}) AS texts FROM {objects})"

    def of_file(self, file: str) -> _Json:
        return replace(self, files=[escaped(file)])

    def first(self, value: str, test: str) -> str:
        numbered = f"SELECT row_number() OVER () AS n, * FROM {self.rows}"
        return f"SELECT n, {value} FROM ({numbered}) WHERE {test} ORDER BY n LIMIT 1"

    def meaning(self, column: TextColumn) -> str:
        if not _is_exact(column):
            return column.meaning
        return f"{column.meaning} (of more than 15 digits, a number with a decimal point must be written in quotes)"

    def fits(self, column: TextColumn) -> str | None:
        """DuckDB reads a JSON number with a decimal point as a DOUBLE: of one with more digits, it gives another."""
        fits, value = super().fits(column), self.values[column.name]
        if fits is None or not _is_exact(column):
            return fits
        digits = f"length(ltrim(regexp_replace({value}, '[^0-9]', '', 'g'), '0')) <= 15"
        if column.sql_type in WHOLE_NUMBERS:
            digits = f"abs(TRY_CAST({value} AS DOUBLE)) < 9007199254740992"  # up to here, each is a DOUBLE
        is_text = f"json_type(json, {_path(column)}) = 'VARCHAR'"
        return f"{fits} AND (NOT regexp_matches({value}, '[.eE]') OR {digits} OR {is_text})"

    def absent(self, column: TextColumn) -> str:
        return f"NOT json_exists(json, {_path(column)})"

    def checked(self, number: int, column: TextColumn) -> str:
        value = super().checked(number, column)
        if column.optional:
            return value
        absent = f"error(concat('pip_dagster absent {number} ', {FILE}))"
        there = f"{self.values[column.name]} IS NOT NULL OR json_exists(json, {_path(column)})"
        return f"CASE WHEN {there} THEN {value} ELSE {absent} END"

    def unparsed(self, rows: TextRows, error: Exception) -> SourceError:
        if found := _MALFORMED.search(str(error)):
            record = max(1, int(found[2]) - 1)  # DuckDB counts from 2
            return rows.error(found[1], f"is not JSON in record {record}: {found[3]}")
        return rows.error(rows.place, f"is not JSON. DuckDB says: {first(error)}")
