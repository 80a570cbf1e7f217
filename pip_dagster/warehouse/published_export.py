"""What is published, as Parquet files: for tools that read no DuckDB file."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.sql.names import among, bare_type, literal, quote
from pip_dagster.warehouse.published_rows import attached_tables, files_of
from pip_dagster.warehouse.published_select import rows_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Types that DuckDB writes to Parquet as others, with other values; the rest keep their values.
AS_TEXT = re.compile(r"\b(U?HUGEINT|INTERVAL|TIME WITH TIME ZONE|UNION)\b")


@contextmanager
def of_files(con: DuckDBPyConnection, folder: Path) -> Iterator[dict[str, str]]:
    """The name of each published table of a pipeline → SQL of its rows. Attached files stay as they are meanwhile."""
    with attached_tables(con, files_of(folder)) as tables:
        yield {name: " UNION ALL BY NAME ".join(rows) for (_, name), rows in tables.items()}


def of_lake(con: DuckDBPyConnection, pipeline: str) -> dict[str, str]:
    """The same of a lake that publishes nothing: it is the current catalog, and is read as of one moment."""
    select = f"SELECT DISTINCT partition_key FROM ledger.partitions WHERE pipeline = {literal(pipeline)}"
    keys = [key for (key,) in con.execute(select).fetchall()]
    return {rows.table[1]: rows.select for rows in rows_of(con, pipeline, keys) if rows.select}


def write(
    con: DuckDBPyConnection, tables: Mapping[str, str], folder: Path, keys: Sequence[str] | None
) -> dict[str, int]:
    """Write a Parquet file for each table that has rows of these partitions, None for all; how many rows each has.

    Raises:
        duckdb.Error, OSError: it cannot be written; then nothing is.
    """
    where = "" if keys is None else f" WHERE {among('partition_key', keys)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    found: dict[str, int] = {}
    try:
        for name, select in tables.items():
            file = temporary / f"{name}.parquet"
            counted = con.execute(f"COPY ({castable(con, f'SELECT * FROM ({select}){where}')}) TO {literal(str(file))}")
            found[name] = int((counted.fetchone() or [0])[0])
            if not found[name]:
                file.unlink()
                del found[name]
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return found


def castable(con: DuckDBPyConnection, select: str) -> str:
    """The same rows; without this, DuckDB would write a HUGEINT as a DOUBLE, and two keys could become one."""
    types = con.execute(f"DESCRIBE {select}").fetchall()
    casts = [f"{quote(name)}::VARCHAR AS {quote(name)}" for name, of, *_ in types if AS_TEXT.search(bare_type(of))]
    return f"SELECT * REPLACE ({', '.join(casts)}) FROM ({select})" if casts else select
