"""Where the rows of a query go: a table on a terminal, or a stream of rows in a format that machines read."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from pip_dagster.cli.cells import exact, single
from pip_dagster.cli.output import echo, plain, show_table
from pip_dagster.sql.names import bare_type, quote
from pip_dagster.whole_file import replacing

FORMATS = {"table": "", "csv": ".csv", "json": ".json", "jsonl": ".jsonl", "parquet": ".parquet", "markdown": ".md"}
_SHOWN = 200
_BATCH = 10_000
_AS_TEXT = re.compile(r"\b(U?HUGEINT|BIGNUM|BIT|INTERVAL|TIME WITH TIME ZONE|UNION)\b")

Result = Any  # a DuckDB cursor


def show_rows(result: Result, form: str) -> None:
    """Print the rows."""
    if form == "table":
        columns, texts = _columns(result), _exact_of(result)
        rows = result.fetchmany(_SHOWN)
        show_table(
            None, columns, ([text(value) for text, value in zip(texts, row, strict=True)] for row in rows), text=exact
        )
        if result.fetchone():
            echo(f"More than {_SHOWN} rows: add a LIMIT, or print all of them with --format csv.", err=True)
    else:
        _WRITERS[form](result, sys.stdout)


def write_rows(result: Result, sql: str, form: str, path: Path, *, force: bool) -> int:
    """Write the rows of this SQL to a file, which appears or is replaced when complete; the number of its bytes."""
    check_target(path, force=force)
    with _replacing(path) as partial:
        if form == "parquet":
            _write_parquet(_for_parquet(result, sql), partial)
        else:
            with partial.open("w", encoding="utf-8", newline="") as file:
                _WRITERS[form](result, file)
        return partial.stat().st_size


def check_target(path: Path, *, force: bool) -> None:
    """Refuse a file that is there, unless it is to be replaced.

    Raises:
        click.ClickException: it exists, is no file, or its folder does not exist.
    """
    if path.exists() and not path.is_file():
        raise click.ClickException(f"{path} is not a file. Name a new file.")
    if path.exists() and not force:
        raise click.ClickException(f"{path} exists. Name another file, or replace it with --force.")
    if not path.parent.is_dir():
        raise click.ClickException(f"The folder {path.parent} does not exist. Create it first.")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """As `replacing`, with an error of a command."""
    path = path.resolve()  # what a link points at is replaced, not the link
    try:
        with replacing(path) as partial:
            yield partial
    except OSError as error:
        raise click.ClickException(
            f"{path} cannot be written: {error.strerror or error}. Nothing was changed."
        ) from error


def _columns(result: Result) -> list[str]:
    return [column[0] for column in result.description or []]


def _batches(result: Result) -> Iterator[list[tuple[Any, ...]]]:
    size = max(1, _BATCH * 10 // max(10, len(_columns(result))))
    while rows := result.fetchmany(size):
        yield rows


def _exact_of(result: Result) -> list[Callable[[Any], Any]]:
    """How each column's values are shown: numbers of 32 bits with the digits that they have."""
    return [single if str(column[1]) == "FLOAT" else lambda value: value for column in result.description or []]


def _write_csv(result: Result, file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_columns(result))
    for rows in _batches(result):
        writer.writerows(rows)


def _write_json(result: Result, file: TextIO) -> None:
    before = "[\n  "
    for record in _records(result, file):
        file.write(before + record)
        before = ",\n  "
    file.write("[]\n" if before.startswith("[") else "\n]\n")


def _write_jsonl(result: Result, file: TextIO) -> None:
    for record in _records(result, file):
        file.write(record + "\n")


def _records(result: Result, file: TextIO) -> Iterator[str]:
    columns = _columns(result)
    ascii_only = not (file.encoding or "utf-8").lower().replace("-", "").startswith("utf")
    for rows in _batches(result):
        for row in rows:
            record = plain(dict(zip(columns, row, strict=True)))
            yield json.dumps(record, ensure_ascii=ascii_only, default=str)


def _write_markdown(result: Result, file: TextIO) -> None:
    columns, texts = _columns(result), _exact_of(result)
    right = [str(column[1]) in _NUMBERS or str(column[1]).startswith("DECIMAL") for column in result.description]
    _markdown_line(columns, file)
    file.write("|" + "|".join("---:" if each else "---" for each in right) + "|\n")
    for rows in _batches(result):
        for row in rows:
            _markdown_line([exact(text(value)) for text, value in zip(texts, row, strict=True)], file)


def _markdown_line(values: list[str], file: TextIO) -> None:
    escaped = (value.replace("\\", "\\\\").replace("|", "\\|").replace("\n", "<br>") for value in values)
    file.write("| " + " | ".join(escaped) + " |\n")


def _write_table(result: Result, file: TextIO) -> None:
    from pip_dagster.cli.table import lay_out

    texts = _exact_of(result)
    rows = [[text(v) for text, v in zip(texts, row, strict=True)] for row in result.fetchall()]
    table = lay_out(_columns(result), rows, None, text=exact)
    file.writelines(f"{line}\n" for line in (*table.header, *table.lines))


def _for_parquet(result: Result, sql: str) -> Result:
    """The same rows, of types that Parquet has: DuckDB would hand over others with other values."""
    casts = []
    for name, kind, *_ in result.description:
        if (of := bare_type(str(kind))) == "HUGEINT":  # of a sum; a number with more digits is an error
            casts.append(f"{quote(name)}::DECIMAL(38, 0) AS {quote(name)}")
        elif _AS_TEXT.search(of):
            casts.append(f"{quote(name)}::VARCHAR AS {quote(name)}")
    if not casts:
        return result
    statement = result.extract_statements(sql)[0].query.strip().rstrip(";")
    return result.execute(f"SELECT * REPLACE ({', '.join(casts)}) FROM ({statement}\n)")


def _write_parquet(result: Result, path: Path) -> None:
    import pyarrow.parquet as pq

    reader = result.to_arrow_reader(_BATCH)
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)


_NUMBERS = {
    *(f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")),
    *("INTEGER", "UINTEGER", "FLOAT", "DOUBLE", "BIGNUM"),
}
_WRITERS: dict[str, Callable[[Result, TextIO], None]] = {
    "csv": _write_csv,
    "json": _write_json,
    "jsonl": _write_jsonl,
    "markdown": _write_markdown,
    "table": _write_table,
}
