"""The folder through which a run and its tasks exchange rows: Parquet files, each of one share of a partition."""

from __future__ import annotations

import glob
import hashlib
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.declaration.lake import unkept_type
from pip_dagster.errors import ClusterError, DeclarationError
from pip_dagster.sql.names import literal, quote, quote_all

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_PREFIX = "pip_dagster_exchange_"
_KEY = "scoring.engine.exchange"


@contextmanager
def exchange_folder(place: Path) -> Iterator[Path]:
    """A new folder of a run in `place`, removed afterwards; before, leftovers of runs killed here are removed.

    Raises:
        ClusterError: it cannot be created, written or read.
    """
    import duckdb

    mine = f"{_PREFIX}{_machine()}_"
    for old in place.glob(f"{mine}*_*") if Path("/proc/self").exists() else ():
        pid = old.name.removeprefix(mine).split("_")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = place / f"{mine}{os.getpid()}_{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ClusterError(
            f"{_KEY} is {place}, where this process cannot create a folder ({error.strerror}). Name a folder that this "
            "process and every node of the cluster can write, under the same path."
        ) from error
    try:
        yield folder
    except (OSError, duckdb.Error) as error:
        if str(folder) not in str(error):
            raise
        raise ClusterError(
            f"The exchange cannot be used: {str(error).splitlines()[0]}. Free space on its disk, or name another "
            f"folder as `{_KEY}`. Stored partitions are unchanged."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _machine() -> str:
    """Names where a PID identifies a process: several machines and containers, even of one name, share the exchange."""
    found = [socket.gethostname()]
    with suppress(OSError):
        found += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return hashlib.sha256("|".join(found).encode()).hexdigest()[:16]


def share_of(key: Sequence[str], shares: int) -> str:
    """SQL of the number of a row's share: every row is in exactly one, and rows of one key are in the same."""
    return f"(hash({quote_all(key)}) % {shares})::BIGINT"


def first_row_id(share: int) -> int:
    """Where the row ids of a share begin, so that they are unique in the partition."""
    return share << 40


def share_file(folder: str | Path, share: int) -> str:
    """The file of a share's rows."""
    return str(Path(folder) / f"{share:05d}.parquet")


def write(con: DuckDBPyConnection, select: str, file: str) -> None:
    """Write a file whole or not at all: a task that is repeated replaces what it wrote before."""
    target = Path(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        con.execute(f"COPY ({select}) TO {literal(str(part))} (FORMAT parquet, ROW_GROUP_SIZE 61440)")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def write_shares(con: DuckDBPyConnection, select: str, share: str, folder: Path) -> dict[int, list[str]]:
    """Write each share's rows to files of their own in a new folder; share → its files, without those that have none.

    `share`: SQL of a row's share, over the columns of `select`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    divided = f"SELECT *, {share} AS pip_share FROM ({select})"
    con.execute(f"COPY ({divided}) TO {literal(str(folder))} (FORMAT parquet, PARTITION_BY (pip_share), OVERWRITE)")
    files: dict[int, list[str]] = {}
    for file in sorted(folder.glob("pip_share=*/*.parquet")):
        files.setdefault(int(file.parent.name.partition("=")[2]), []).append(str(file))
    return files


def rows_of_files(files: Sequence[str], columns: Mapping[str, str]) -> str:
    """SELECT of the row ids and these columns (name → SQL type) of files that `write` wrote; no rows without files."""
    if not files:
        empty = ", ".join(f"NULL::{sql_type} AS {quote(name)}" for name, sql_type in columns.items())
        return f"SELECT NULL::BIGINT AS rowid, {empty} LIMIT 0"
    listed = ", ".join(f"{quote(name)}::{sql_type} AS {quote(name)}" for name, sql_type in columns.items())
    paths = ", ".join(literal(glob.escape(file)) for file in files)
    return f"SELECT rowid, {listed} FROM read_parquet([{paths}], hive_partitioning = false)"


def check_exchanged(pipeline: str, columns: Mapping[str, str]) -> None:
    """Refuse columns that Parquet would not return unchanged.

    Raises:
        DeclarationError: names the first, with the cast to write.
    """
    for column, sql_type in columns.items():
        if unkept := unkept_type(sql_type):
            raise DeclarationError(
                f"Pipeline {pipeline}: column {column!r} is {sql_type}, and the Parquet files through which "
                f"`scoring.engine: ray` exchanges rows do not return {unkept} unchanged. Cast it in the feature SQL, "
                "or in the decision: whole numbers to BIGINT or DECIMAL(38, 0), anything else to VARCHAR; or declare "
                "`engine: local`."
            )
