"""The rows of a partition that is to be split, and what its arms have of them; the warehouse is current."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pip_dagster.errors import PartitionError
from pip_dagster.flow.sample_ratio import Counted
from pip_dagster.ledger.arms import Arm
from pip_dagster.ledger.record import ScoringEntry
from pip_dagster.plural import plural
from pip_dagster.sql.names import literal, quote, quote_all
from pip_dagster.warehouse.tables import predictions_select

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline


def rows_without_unit(con: DuckDBPyConnection, pipeline: Pipeline, champion: ScoringEntry) -> int:
    """Rows that cannot be assigned, since a column of their unit is NULL."""
    missing = " OR ".join(f"{quote(name)} IS NULL" for name in pipeline.spec.unit)
    return _count(con, f"SELECT count(*) FROM {_rows(champion)} WHERE {missing}")


def other_rows(con: DuckDBPyConnection, pipeline: Pipeline, champion: ScoringEntry, arm: ScoringEntry) -> int:
    """Rows that one of the two has and the other has not; they would be lost, or come from nowhere.

    Both score what is admitted of the same features. Only unseen categories in quarantine depend on the champion, and
    an arm's scoring may be older than that. To join the keys takes a second a million: it is done where it can matter.
    """
    if pipeline.spec.scoring.on_unseen_category != "quarantine":
        return abs((champion.rows_scored or 0) - (arm.rows_scored or 0))
    key = quote_all(pipeline.spec.features.key)
    a, b = f"(SELECT {key} FROM {_rows(champion)})", f"(SELECT {key} FROM {_rows(arm)})"
    return _count(
        con,
        f"SELECT (SELECT count(*) FROM {a} a ANTI JOIN {b} b USING ({key})) "
        f"+ (SELECT count(*) FROM {b} b ANTI JOIN {a} a USING ({key}))",
    )


def _rows(entry: ScoringEntry) -> str:
    table = f"{quote(entry.pipeline)}.{quote(entry.table_name or '')}"
    return f"(SELECT * FROM {table} WHERE scoring_id = {literal(entry.scoring_id)})"


def _count(con: DuckDBPyConnection, sql: str) -> int:
    row = con.execute(sql).fetchone()
    return int(row[0]) if row else 0


def count_units(con: DuckDBPyConnection, champion: ScoringEntry, wanted: Sequence[Arm]) -> dict[str, Counted]:
    """What each arm has of a partition, as everybody will read it.

    Raises:
        PartitionError: that is not every row of the champion's once; roll back.
    """
    ids = ", ".join(sorted({literal(arm.scoring_id) for arm in wanted}))
    units = ", ".join(quote(name) for name in json.loads(wanted[0].unit))
    rows = con.execute(
        f"SELECT arm, count(*), count(DISTINCT ({units})) FROM ({predictions_select(con, champion.pipeline)}) p "
        f"WHERE partition_key = {literal(champion.partition_key)} AND scoring_id IN ({ids}) GROUP BY arm"
    ).fetchall()
    if (total := sum(row[1] for row in rows)) != champion.rows_scored:
        raise PartitionError(
            f"Pipeline {champion.pipeline}, partition {champion.partition_key}: {plural(total, 'row')} would be live, "
            f"{champion.rows_scored} were scored. Nothing was split; this is a defect of pip_dagster, please report it."
        )
    return {arm: Counted(count, distinct) for arm, count, distinct in rows}
