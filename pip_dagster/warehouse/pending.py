"""What the ledger holds and the published files do not show yet."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.sql.names import among, literal
from pip_dagster.warehouse import advisory, kinds, stamp
from pip_dagster.warehouse.published_views import has_rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

Pending = tuple[str, str, list[str]]  # pipeline, partition key, ids of what is not published

_UNPUBLISHED = "ANTI JOIN ledger.publications p ON p.change_id = id"
# The newest rows that are always read, and up to how many are.
_AT_LEAST, _AT_MOST = 8, 256


def pending_of(con: DuckDBPyConnection, *, everything: bool = False) -> list[Pending]:
    """What is not published, by pipeline and partition; with `everything`, all that there is to publish.

    The warehouse is the current catalog and no transaction is open.
    """
    if everything:
        return _all(con)
    if not advisory.is_shared(con) and (newest := _among_newest(con)) is not None:
        return newest
    return _all(con, _UNPUBLISHED)


def make_pending(con: DuckDBPyConnection, pipeline: str, keys: Sequence[str]) -> None:
    """Have these partitions published again. The warehouse is the current catalog; call it in a transaction."""
    ids = " UNION ALL ".join(f"SELECT {_columns(kind)}" for kind in kinds.announcing())
    con.execute(
        f"DELETE FROM ledger.publications WHERE change_id IN (SELECT id FROM ({ids}) "
        f"WHERE pipeline = {literal(pipeline)} AND {among('partition_key', keys)})"
    )


def pending_publications(con: DuckDBPyConnection, project: Project) -> list[Pending]:
    """What `publish_pending` would write now. The warehouse is the current catalog; nothing is written."""
    return pending_of(con, everything=is_behind(con, project)) if project.publishes else []


def is_behind(con: DuckDBPyConnection, project: Project) -> bool:
    """Whether the folder lacks what was published: it is gone, or was restored from a backup."""
    folder, path = project.published, stamp.published_stamp(project)
    while True:
        try:
            gone = not folder.is_dir()
        except OSError:  # not to be read, so not to be written either, which is logged
            return False
        at = stamp.read(path)
        if gone or at is None:
            empty = gone or not has_rows(folder)
            return empty and con.execute("SELECT 1 FROM ledger.publications LIMIT 1").fetchone() is not None
        if not _published_since(con, at):
            return False
        if stamp.read(path) == at:  # else another process of a lake has published meanwhile
            return True


def _published_since(con: DuckDBPyConnection, at: stamp.Stamp) -> bool:
    """Whether a change behind this stamp counts as published. The stamp is written before."""
    since = f"SELECT subject->>'change_id' FROM ledger.audit WHERE seq > {at.entry} AND action = 'live'"
    ids = [row[0] for row in con.execute(since).fetchall()]
    if not ids:
        return False
    of_ids = f"{published_from(con, min(ids))} AND {among('change_id', ids)}"
    return con.execute(f"SELECT 1 FROM ledger.publications WHERE {of_ids} LIMIT 1").fetchone() is not None


def published_from(con: DuckDBPyConnection, oldest: str) -> str:
    """SQL of `ledger.publications` that is true for the changes from this id on.

    An id begins with its instant, and it is published later. By its first bytes, which are a day, DuckDB would skip
    little; by the instant it skips what was published before. In a shared warehouse, clocks may differ.
    """
    of_ids = f"change_id >= {literal(oldest)}"
    at = None if advisory.is_shared(con) else clock.of_id(oldest)
    return f"{of_ids} AND made_at >= {literal(at.isoformat())}::TIMESTAMPTZ" if at else of_ids


def _all(con: DuckDBPyConnection, but: str = "") -> list[Pending]:
    ids = " UNION ALL ".join(f"SELECT {_columns(kind)}" for kind in kinds.announcing())
    select = f"SELECT pipeline, partition_key, list(id) AS ids FROM ({ids}) {but} GROUP BY ALL ORDER BY ALL"
    return con.execute(select).fetchall()


def _columns(kind: kinds.Kind) -> str:
    return f"pipeline, partition_key, {kind.pending_id} AS id FROM {kind.in_sql('')}"


def _among_newest(con: DuckDBPyConnection) -> list[Pending] | None:
    """What is pending if all of it is among the newest rows, else None: of a long ledger, only the end is read.

    How many are pending is a difference of row counts: one process at a time writes a file, and it writes a change to
    `ledger.publications` once. If another number is found, the tables are not as expected.
    """
    announcing = kinds.announcing()
    counts = ", ".join(f"(SELECT count(*) FROM {kind.in_sql('')})" for kind in announcing)
    counted = con.execute(f"SELECT (SELECT count(*) FROM ledger.publications), {counts}").fetchone()
    assert counted
    published, *rows = counted
    expected = sum(rows) - published
    if not 0 <= expected <= _AT_MOST or not sum(rows):
        return None
    read = max(expected, _AT_LEAST)
    ends = zip(announcing, rows, strict=True)
    selects = [f"SELECT {_columns(kind)} WHERE rowid >= {count - read}" for kind, count in ends]
    newest = con.execute(" UNION ALL ".join(selects) + " ORDER BY ALL").fetchall()
    published_since = published_from(con, min(row[2] for row in newest))
    select = f"SELECT change_id FROM ledger.publications WHERE {published_since}"
    done = {row[0] for row in con.execute(select).fetchall()}
    pending = [row for row in newest if row[2] not in done]
    if len(pending) != expected:
        return None
    return [(*of, [row[2] for row in rows]) for of, rows in groupby(pending, key=itemgetter(0, 1))]
