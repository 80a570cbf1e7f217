"""CSV and JSON files, parsed once when they are opened: all reads are of the temporary table that this fills.

So a file that is replaced meanwhile is seen as it was, and what does not fit its declared type is found before any use.
"""

from __future__ import annotations

import glob
import gzip
import io
import re
import secrets
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pip_dagster.declaration.places import is_remote
from pip_dagster.declaration.text_columns import TextColumn, text_columns
from pip_dagster.errors import SourceError
from pip_dagster.flow.source_files import SourceFiles, holds
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse import faults, remote
from pip_dagster.warehouse.interrupts import raise_if_interrupted
from pip_dagster.warehouse.memory import is_out_of_memory, with_more

if TYPE_CHECKING:
    from pip_dagster.declaration.source import Source
    from pip_dagster.flow.origins.opened import Opening

# The column of the file that a row is from; no file can have one of this name, since columns are read by number.
FILE = "pip_file"
_UNFIT = re.compile(r"pip_dagster (unfit|absent) (\d+) (.*)")
_PACKED = (".zst", ".bz2", ".xz", ".zip", ".br", ".lz4")
_ENDS = 1 << 16


class TextRows:
    """The rows of one source, as a temporary table."""

    def __init__(self, at: Opening, name: str, source: Source, place: str) -> None:
        self.con, self.where, self.place = at.con, at.where(name, source), place
        self.columns = text_columns(source.columns or {})
        self.table = f"temp.main.pip_rows_{secrets.token_hex(8)}"
        self._root, self._key = at.root, source.origin_key
        listed = ", ".join(f"{quote(column.name)} {column.sql_type}" for column in self.columns)
        self.con.execute(f"CREATE TEMP TABLE {self.table.rpartition('.')[2]} ({listed})")
        at.stack.callback(self.con.execute, f"DROP TABLE IF EXISTS {self.table}")

    @cached_property
    def files(self) -> list[str]:
        """The declared files.

        Raises:
            SourceError: there is none, or one is packed in a way that is not read.
        """
        if self.place.startswith(("http://", "https://")):
            found = [self.place]
        else:
            pattern = self.place if is_remote(self.place) else SourceFiles.pattern_of(self._root, self.place)
            found = sorted(row[0] for row in self.con.execute(f"SELECT file FROM glob({literal(pattern)})").fetchall())
        if not found:
            hint = f"create a file, or correct `{self._key}`, which is relative to the project"
            if not is_remote(self.place) and holds((self._root / self.place).is_dir):
                hint = f"it is a directory: declare the files in it, {self.place.rstrip('/')}/*.{self._key}"
            raise SourceError(f"{self.where} cannot be read from {self.place}: no file matches; {hint}.")
        for file in found:
            if file.lower().endswith(_PACKED):
                raise self.error(file, "is compressed in a way that is not read here; write it as it is, or as .gz")
            if file.lower().endswith(".gz"):
                self._check_whole(file)
        return found

    def error(self, file: str, text: str) -> SourceError:
        """What is wrong with one file."""
        return SourceError(f"{self.where} cannot be read: {file} {text}.")

    def _check_whole(self, file: str) -> None:
        """DuckDB reads a file of gzip that was cut off as far as it goes, without an error."""
        try:
            with self._binary(file) as raw, gzip.open(raw) as stream:
                while stream.read(1 << 20):
                    pass
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self.error(file, f"is not a whole file of gzip ({error}); write it again") from error
        except OSError as error:
            raise self._closed(file, error) from error

    def _closed(self, file: str, error: OSError) -> SourceError:
        return self.error(file, f"cannot be opened ({error.strerror or error}); give this user the right, or run again")

    def _binary(self, file: str) -> BinaryIO:
        if not is_remote(file):
            return Path(file).open("rb")
        row = self.con.execute(f"SELECT content FROM read_blob({literal(file)})").fetchone()
        return io.BytesIO(row[0] if row else b"")

    def first_line(self, file: str) -> str | None:
        """The first line of a text file; None of an empty one."""
        if is_remote(file):
            options = "header = false, auto_detect = false, columns = {'line': 'VARCHAR'}, delim = '\x01', quote = '', "
            options += "escape = '', strict_mode = false, hive_partitioning = false"
            row = self.con.execute(f"SELECT line FROM read_csv({literal(file)}, {options}) LIMIT 1").fetchone()
            return str(row[0] or "").removeprefix("\ufeff") if row else None
        try:
            with self._binary(file) as raw, gzip.open(raw) if file.lower().endswith(".gz") else raw as stream:
                line = stream.readline()
            text = line.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self.error(file, "is not UTF-8 in its first line; write it as UTF-8") from error
        except OSError as error:
            raise self._closed(file, error) from error
        return text.splitlines()[0] if text.strip("\r\n") else ("" if line else None)

    def ends(self, file: str) -> tuple[bytes, bytes]:
        """The first and the last sign of a file; empty of an empty file."""
        if is_remote(file) and not file.lower().endswith(".gz"):
            blob = f"SELECT content[1:{_ENDS}], content[-{_ENDS}:] FROM read_blob({literal(file)})"
            first, last = self.con.execute(blob).fetchone() or (b"", b"")
            return first.removeprefix(b"\xef\xbb\xbf").strip()[:1], last.strip()[-1:]
        try:
            with self._binary(file) as raw, gzip.open(raw) if file.lower().endswith(".gz") else raw as stream:
                first = last = stream.read(_ENDS).removeprefix(b"\xef\xbb\xbf").strip()
                if stream is raw:
                    raw.seek(max(0, raw.seek(0, io.SEEK_END) - _ENDS))
                while block := stream.read(1 << 20):
                    last = block.strip() or last
        except OSError as error:
            raise self._closed(file, error) from error
        return first[:1], last[-1:]

    def insert(self, reading: Reading) -> None:
        """Add what a reading gives.

        Raises:
            SourceError: a file cannot be parsed, or a value does not fit its column; names file, line and column.
        """
        import duckdb

        values = ", ".join(reading.checked(number, column) for number, column in enumerate(self.columns))
        try:
            # DuckDB parses in buffers of 32 MB, which may be more than this piece of work has.
            with_more(
                self.con, partial(self.con.execute, f"INSERT INTO {self.table} SELECT {values} FROM {reading.rows}")
            )
        except duckdb.Error as error:
            raise_if_interrupted(error)
            if faults.is_of_spill(error) or is_out_of_memory(error) or remote.is_of_server(error):
                raise
            raise self._explained(error, reading) from error

    def _explained(self, error: Exception, reading: Reading) -> SourceError:
        found = _UNFIT.search(str(error))
        if not found:
            return reading.unparsed(self, error)
        column, file = self.columns[int(found[2])], found[3]
        rows = reading.of_file(file)
        value = rows.values[column.name]
        test = rows.absent(column) if found[1] == "absent" else rows.unfit(column)
        line = None
        before = self.con.execute("SELECT current_setting('preserve_insertion_order')").fetchone()
        with suppress(Exception):  # the file may be gone by now
            self.con.execute("SET preserve_insertion_order = true")
            (line, *_) = self.con.execute(rows.first(value, test)).fetchone() or (None,)
        self.con.execute(f"SET preserve_insertion_order = {str(bool(before and before[0])).lower()}")
        place = f"in {reading.counted} {line}" if line else "in one of its records"
        if found[1] == "absent":
            return self.error(
                file,
                f"lacks {column.name!r} {place}; write it, as null where there is no value, or declare the column as "
                f"`{column.sql_type} optional`",
            )
        return self.error(
            file,
            f"has a value that does not fit {column.name} {place}; expected {rows.meaning(column)}"
            f", since the column is declared as {column.sql_type}. Correct the file, or declare another type",
        )


@dataclass(frozen=True)
class Reading:
    """Files that are read in one way.

    Attributes:
        files: their paths as globs that match nothing else.
        values: column → SQL of its text; a column that is not there is read as NULL.
        counted: what a file consists of, in words.
    """

    files: Sequence[str]
    values: dict[str, str]
    counted: str = "line"

    @property
    def rows(self) -> str:
        """SQL of the rows, for FROM."""
        raise NotImplementedError

    def of_file(self, file: str) -> Reading:
        """The same of one file."""
        raise NotImplementedError

    def first(self, value: str, test: str) -> str:
        """SQL of the place and the text of the first row of a file that `test` finds."""
        raise NotImplementedError

    def unparsed(self, rows: TextRows, error: Exception) -> SourceError:
        """A file that cannot be parsed at all."""
        raise NotImplementedError

    def absent(self, column: TextColumn) -> str:
        """SQL that finds rows without the column."""
        raise NotImplementedError

    def meaning(self, column: TextColumn) -> str:
        """What the texts of a column must be, in words."""
        return column.meaning

    def fits(self, column: TextColumn) -> str | None:
        """SQL that tests whether a row's text is one of the column's type; None where each is."""
        return column.fits(self.values[column.name])

    def unfit(self, column: TextColumn) -> str:
        """SQL that finds rows whose text does not fit the column."""
        return f"{self.values[column.name]} IS NOT NULL AND NOT ({self.fits(column) or 'true'})"

    def checked(self, number: int, column: TextColumn) -> str:
        """SQL of a column's value, which fails where the text is not one."""
        value = self.values.get(column.name)
        if value is None:
            return f"NULL::{column.sql_type}"
        fits = self.fits(column)
        if fits is None:
            return value
        return (
            f"CASE WHEN {value} IS NULL THEN NULL WHEN {fits} THEN {value}::{column.sql_type} "
            f"ELSE error(concat('pip_dagster unfit {number} ', {FILE})) END"
        )


def escaped(file: str) -> str:
    """A glob that matches this file alone."""
    return file if is_remote(file) else glob.escape(file)
