"""Keeping a lake small and fast: small files are merged, and files that no reader needs any more are removed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pip_dagster.sql.names import CATALOG, literal
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# A killed process left a file that is this old and in no snapshot; a younger one may still be written to.
_ORPHANED_AFTER = timedelta(days=1)


@dataclass(frozen=True)
class Maintained:
    """What was done: rows moved from Postgres to Parquet, files merged, snapshots and files removed."""

    flushed_rows: int
    merged_files: int
    expired_snapshots: int
    removed_files: int


def maintain(con: DuckDBPyConnection, *, keep: timedelta) -> Maintained:
    """Merge small files and expire snapshots older than `keep`; no row is lost or changed.

    A reader or a run that takes longer than `keep` would lose the files that it reads. The lake is open for writing.
    Runs may go on meanwhile: a run whose transaction conflicts retries it.
    """
    with transaction(con):
        flushed = con.execute(f"CALL ducklake_flush_inlined_data({literal(CATALOG)})").fetchall()
    with transaction(con):
        merged = con.execute(f"CALL ducklake_merge_adjacent_files({literal(CATALOG)})").fetchall()
    expired = _call(con, "ducklake_expire_snapshots", keep)
    removed = _call(con, "ducklake_cleanup_old_files", keep)
    removed += _call(con, "ducklake_delete_orphaned_files", _ORPHANED_AFTER)
    return Maintained(
        flushed_rows=sum(int(row[2]) for row in flushed),
        merged_files=sum(int(row[2]) for row in merged),
        expired_snapshots=expired,
        removed_files=removed,
    )


def _call(con: DuckDBPyConnection, function: str, older: timedelta) -> int:
    before = f"now() - INTERVAL '{int(older.total_seconds())} seconds'"
    return len(con.execute(f"CALL {function}({literal(CATALOG)}, older_than => {before})").fetchall())
