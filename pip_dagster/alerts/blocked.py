"""Which partitions are blocked now, read from the published ledger: no writer has to wait."""

from __future__ import annotations

from pip_dagster.declaration.project import Project
from pip_dagster.errors import WarehouseError

# Only the champion's newest attempt counts: a partition that was scored since is not blocked any more.
_BLOCKED = """
  SELECT partition_key, arg_max(scoring_id, scoring_id) AS entry, arg_max(reason, scoring_id) AS reason
  FROM ledger.partitions WHERE pipeline = $pipeline AND role = 'champion'
  GROUP BY partition_key HAVING arg_max(status, scoring_id) = 'blocked' ORDER BY partition_key
"""


def blocked_partitions(project: Project, pipeline: str) -> dict[str, tuple[str, str]]:
    """Partition → the id of its newest scoring in the ledger, and why it was blocked; empty before the first run.

    Raises:
        WarehouseError: the published database cannot be read.
    """
    import duckdb

    if not project.published_database.is_file():
        return {}
    try:
        with duckdb.connect(str(project.published_database), read_only=True) as con:
            rows = con.execute(_BLOCKED, {"pipeline": pipeline}).fetchall()
    except duckdb.Error as error:
        raise WarehouseError(
            f"The published ledger {project.published_database} cannot be read: {str(error).splitlines()[0]} "
            "Run `pip-dagster publish` to rebuild it."
        ) from error
    return {key: (entry, reason or "blocked") for key, entry, reason in rows}
