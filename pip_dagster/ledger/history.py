"""What was live when, and what a key was ever given. The warehouse is the current catalog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pip_dagster.errors import WarehouseError
from pip_dagster.ledger.arms import arms_of
from pip_dagster.ledger.record import dicts
from pip_dagster.sql.names import quote
from pip_dagster.warehouse.tables import live_row, views_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def live_changes(con: DuckDBPyConnection, pipeline: str, partition_key: str) -> list[dict[str, Any]]:
    """Every move of a partition's live pointer, oldest first: the change, the scoring that went live, and its arms."""
    changes = dicts(
        con.execute(
            "SELECT c.change_id, c.made_at AS live_from, lead(c.made_at) OVER (ORDER BY c.change_id) AS live_until, "
            "c.made_by AS changed_by, c.why, c.run_id AS changed_by_run, c.kind, c.pinned_version, c.as_known, "
            "c.experiment, s.* EXCLUDE (pipeline, partition_key) "
            "FROM ledger.live_changes c JOIN ledger.scorings s ON s.scoring_id = c.scoring_id "
            "WHERE c.pipeline = $pipeline AND c.partition_key = $partition ORDER BY c.change_id",
            {"pipeline": pipeline, "partition": partition_key},
        )
    )
    arms = arms_of(con, [change["change_id"] for change in changes])
    return [change | {"arms": [asdict(arm) for arm in arms.get(change["change_id"], ())]} for change in changes]


def scores_of_key(
    con: DuckDBPyConnection, pipeline: str, columns: Sequence[str], values: Sequence[str], partition: str | None
) -> list[dict[str, Any]]:
    """Every score that a key was ever given, oldest first, whatever its role; `arm` where it is live, by which arm.

    Values are compared as text. `partition` limits it to one.

    Raises:
        WarehouseError: nothing was ever scored, or the scores have no such column.
    """
    if "scores" not in views_of(con, pipeline):
        raise WarehouseError(f"Pipeline {pipeline} has no scores yet.")
    there = [row[0] for row in con.execute(f"DESCRIBE {quote(pipeline)}.scores").fetchall()]
    if unknown := [name for name in columns if name not in there]:
        raise WarehouseError(
            f"The scores of {pipeline} have no column {', '.join(unknown)}; they have {', '.join(there)}."
        )
    where = " AND ".join(f"s.{quote(name)}::VARCHAR = $value_{i}" for i, name in enumerate(columns))
    parameters: dict[str, Any] = {f"value_{i}": value for i, value in enumerate(values)}
    if partition is not None:
        where, parameters = f"{where} AND s.partition_key = $partition", parameters | {"partition": partition}
    return dicts(
        con.execute(
            "SELECT s.*, e.status, e.role, e.model_name, e.model_version, e.feature_revision, "
            "l.scoring_id IS NOT NULL AS is_live, l.arm, e.made_at, e.made_by "
            f"FROM {quote(pipeline)}.scores s JOIN ledger.scorings e ON e.scoring_id = s.scoring_id "
            "LEFT JOIN ledger.live_arms l ON l.pipeline = e.pipeline AND l.scoring_id = e.scoring_id "
            f"AND {live_row(con, pipeline)} WHERE {where} "
            "ORDER BY e.partition_start, s.scoring_id",
            parameters,
        )
    )
