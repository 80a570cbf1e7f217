"""Which partitions are blocked now, read from the published ledger: no writer has to wait."""

from __future__ import annotations

from pip_dagster.declaration.project import Project
from pip_dagster.warehouse.published_views import opened

# Only the champion's newest attempt counts: a partition that was scored since is not blocked any more.
_BLOCKED = """
  SELECT partition_key, arg_max(scoring_id, scoring_id) AS entry, arg_max(reason, scoring_id) AS reason
  FROM ledger.partitions WHERE pipeline = $pipeline AND role = 'champion'
  GROUP BY partition_key HAVING arg_max(status, scoring_id) = 'blocked' ORDER BY max(partition_start)
"""


def blocked_partitions(project: Project, pipeline: str) -> dict[str, tuple[str, str]]:
    """Partition → the id of its newest scoring in the ledger, and why it was blocked; empty before the first run.

    Raises:
        WarehouseError: the published database cannot be read.
    """
    if not project.published_database.is_file():
        return {}
    with opened(project) as con:
        rows = con.execute(_BLOCKED, {"pipeline": pipeline}).fetchall()
    return {key: (entry, reason or "blocked") for key, entry, reason in rows}
