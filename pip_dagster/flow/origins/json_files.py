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
from pip_dagster.sql.names import literal, quote

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
        values = {column.name: f"texts.{quote(column.name)}" for column in rows.columns}
        rows.insert(_Json([escaped(file) for file in rows.files], values, counted="record"))
    return Opened(rows.table)


def identity(root: Path, source: Source) -> str | None:
    """Size and time of the files on a server; `unchanged` reads those of this machine."""
    return state_of_files(source.json_files or "")


def trouble(error: BaseException) -> str:
    """Nothing: its rows are read from a temporary table."""
    return ""


def _path(column: TextColumn) -> str:
    return literal(f'$."{column.name}"')


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
            return rows.error(found[1], f"is not JSON in line {found[2]}: {found[3]}")
        return rows.error(rows.place, f"is not JSON. DuckDB says: {str(error).splitlines()[0]}")
