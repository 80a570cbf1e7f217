"""Finds a key, or the bytes of values, wherever they lie below a folder or in a Postgres: what an erasure must pass.

Files are read raw: free pages of SQLite and free blocks of DuckDB show what was deleted. What compression hides is
read again through the library that wrote it: the columns of Parquet, the tables of DuckDB.
"""

import gzip
import re
import shutil
import struct
import tempfile
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

_NOT_SCANNED = {".lock"}


@dataclass(frozen=True)
class Found:
    """A needle and where it is: a file, a column of one, or a table of Postgres."""

    needle: bytes
    place: str


def needles(*values: object) -> list[bytes]:
    """How these values may stand in a file: as text, and numbers as 4 or 8 bytes too."""
    found = []
    for value in values:
        found.append(value if isinstance(value, bytes) else str(value).encode())
        if isinstance(value, int) and abs(value) > 1 << 24:  # the bytes of a smaller one are everywhere
            found.append(struct.pack("<q", value))
        if isinstance(value, float):
            found += [struct.pack("<d", value), struct.pack("<f", value)]
    return found


def scan(folder: Path, wanted: list[bytes]) -> list[Found]:
    """Every place below `folder` that has one of them."""
    found = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file() and each.suffix not in _NOT_SCANNED):
        data = path.read_bytes()
        found += _in(data, wanted, str(path))
        if data[:4] == b"PAR1":
            found += _in_relation(f"read_parquet($${path}$$)", wanted, str(path))
        elif data[8:12] == b"DUCK":
            found += _in_duckdb(path, wanted)
        elif data[:2] == b"\x1f\x8b":
            found += _in(gzip.decompress(data), wanted, f"{path} (gzip)")
    return found


def scan_postgres(uri: str, wanted: list[bytes], data: Path | None = None) -> list[Found]:
    """The same of all tables of a database, and raw of the folder of the server's data, without its log of writes."""
    import psycopg2

    found = []
    with psycopg2.connect(uri) as con, con.cursor() as cursor:
        cursor.execute("CHECKPOINT")  # so that the files have what the tables have
        cursor.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('information_schema', 'pg_catalog')"
        )
        for schema, table in cursor.fetchall():
            cursor.execute(f'SELECT t::text FROM "{schema}"."{table}" t')
            text = "\n".join(row[0] for row in cursor.fetchall())
            # DuckLake's inlined rows hold text as BYTEA.
            texts = [
                text.encode(),
                b"\n".join(bytes.fromhex(each) for each in re.findall(r"\\x((?:[0-9a-f]{2})+)", text)),
            ]
            found += [each for part in texts for each in _in(part, wanted, f"{schema}.{table}")]
        cursor.execute("SELECT oid FROM pg_database WHERE datname = current_database()")
        oid = cursor.fetchone()[0]
    if data is not None:
        for path in (data / "base" / str(oid)).iterdir():
            with suppress(FileNotFoundError):  # such as pg_internal.init, which Postgres removes now and then
                found += _in(path.read_bytes(), wanted, f"page of {path.name}")
    return found


def _in(data: bytes, wanted: list[bytes], place: str) -> list[Found]:
    present = among(data, wanted)
    return [Found(each, place) for each in wanted if each in present]


def among(data: bytes, wanted: list[bytes]) -> set[bytes]:
    """Those that are in `data`. Keys are sought by what many share: the first bytes, or a number's last."""
    shared = defaultdict(set)
    for each in wanted:
        shared[each[-6:] if len(each) == 8 else each[:6], len(each)].add(each)
    found = set()
    for (part, length), alike in shared.items():
        if len(alike) == 1:
            found |= {each for each in alike if each in data}
            continue
        before = length - len(part) if length == 8 else 0
        at = data.find(part)
        while at >= 0:
            found |= alike & {data[max(at - before, 0) : at - before + length]}
            at = data.find(part, at + 1)
    return found


def _in_duckdb(path: Path, wanted: list[bytes]) -> list[Found]:
    with tempfile.TemporaryDirectory() as place, duckdb.connect() as con:
        copy = shutil.copy(path, place)
        if path.with_name(path.name + ".wal").exists():
            shutil.copy(path.with_name(path.name + ".wal"), place)
        con.execute(f"ATTACH $${copy}$$ AS scanned")
        tables = con.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'scanned'"
        ).fetchall()
        return [
            each
            for schema, table in tables
            for each in _in_relation(f'scanned."{schema}"."{table}"', wanted, f"{path} {schema}.{table}", con)
        ]


def _in_relation(
    relation: str, wanted: list[bytes], place: str, con: duckdb.DuckDBPyConnection | None = None
) -> list[Found]:
    con = con or duckdb.connect()
    table = con.execute(f"SELECT * FROM {relation}").to_arrow_table()
    rows = con.execute(f"SELECT t::VARCHAR FROM (FROM {relation}) t").fetchall()
    found = _in("\n".join(row[0] for row in rows).encode(), wanted, place)
    raw = b"".join(
        bytes(buffer) for column in table.columns for chunk in column.chunks for buffer in chunk.buffers() if buffer
    )
    return found + _in(raw, wanted, place)
