"""What the ledger says and the published files do not show yet."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from pip_dagster.sql.names import literal
from pip_dagster.warehouse import advisory

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Pending = tuple[str, str, list[str]]  # pipeline, partition key, ids of what is not published

_ALL = """
  SELECT pipeline, partition_key, list(id) AS ids FROM (
    SELECT pipeline, partition_key, change_id AS id FROM ledger.live_changes
    UNION ALL SELECT pipeline, partition_key, scoring_id FROM ledger.scorings
  ) {but} GROUP BY ALL ORDER BY ALL
"""
# The newest rows that are always looked at, and up to how many are.
_AT_LEAST, _AT_MOST = 8, 256


def pending_of(con: DuckDBPyConnection, *, anew: bool = False) -> list[Pending]:
    """What is not published, by pipeline and partition; all that there is to publish, where that is to be done `anew`.

    The warehouse is the current catalog, nothing is in transaction.
    """
    if anew:
        return con.execute(_ALL.format(but="")).fetchall()
    if not advisory.is_shared(con) and (newest := _among_newest(con)) is not None:
        return newest
    return con.execute(_ALL.format(but="ANTI JOIN ledger.publications p ON p.change_id = id")).fetchall()


def _among_newest(con: DuckDBPyConnection) -> list[Pending] | None:
    """What is pending where that is just the newest rows, else None: however long the ledger is, its end is read.

    How many are pending is a difference of row counts, since one process at a time writes a file, and a change once
    to `ledger.publications`. As many must be found, or the tables are not as they should be.
    """
    tables = ("live_changes", "scorings", "publications")
    counted = con.execute(
        "SELECT " + ", ".join(f"(SELECT count(*) FROM ledger.{table})" for table in tables)
    ).fetchone()
    assert counted
    changes, scorings, published = counted
    expected = changes + scorings - published
    if not 0 <= expected <= _AT_MOST or not changes + scorings:
        return None
    looked_at = max(expected, _AT_LEAST)
    newest = con.execute(
        "SELECT pipeline, partition_key, change_id AS id FROM ledger.live_changes "
        f"WHERE rowid >= {changes - looked_at} UNION ALL SELECT pipeline, partition_key, scoring_id "
        f"FROM ledger.scorings WHERE rowid >= {scorings - looked_at} ORDER BY ALL"
    ).fetchall()
    oldest = literal(min(row[2] for row in newest))
    published_since = f"SELECT change_id FROM ledger.publications WHERE change_id >= {oldest}"
    done = {row[0] for row in con.execute(published_since).fetchall()}
    pending = [row for row in newest if row[2] not in done]
    if len(pending) != expected:
        return None
    return [(*of, [row[2] for row in rows]) for of, rows in groupby(pending, key=itemgetter(0, 1))]
