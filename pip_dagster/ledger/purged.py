"""Partitions whose contents were purged, for whoever asks for them: by the warehouse's ledger or the published one."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from pip_dagster.ledger.plan_values import PurgedPartitions
from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_PURGED = """
  SELECT purged_by, max(purged_at), list(partition_key ORDER BY start) FROM (
    SELECT partition_key, max(partition_start) AS start, max(purged_by) AS purged_by, max(purged_at) AS purged_at
    FROM ledger.partitions WHERE pipeline = {pipeline} AND role = 'champion'
    GROUP BY 1 HAVING bool_and(purged_at IS NOT NULL)
  ) GROUP BY 1 ORDER BY 1
"""


def purged_of(
    con: DuckDBPyConnection, pipeline: str, partitions: Collection[str] | None = None
) -> tuple[PurgedPartitions, ...]:
    """Those of the partitions, or of all, of which no attempt's contents are left, by purge.

    None where the ledger was published by a version that did not purge.
    """
    import duckdb

    try:
        rows = con.execute(_PURGED.format(pipeline=literal(pipeline))).fetchall()
    except (duckdb.BinderException, duckdb.CatalogException):
        return ()
    wanted = None if partitions is None else {*partitions}
    found = [(of, at, tuple(key for key in keys if wanted is None or key in wanted)) for of, at, keys in rows]
    return tuple(PurgedPartitions(*each) for each in found if each[2])
