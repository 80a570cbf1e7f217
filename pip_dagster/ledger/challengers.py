"""A challenger's scores compared with the live ones, row by row, for each partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pip_dagster.ledger.record import dicts
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse.tables import views_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec


@dataclass(frozen=True)
class ChallengerComparison:
    """One partition's live scores against one challenger's, over the keys that both have.

    Differences are of the first score column. `flips`: share of the rows for which a BOOLEAN decision, or the predicted
    class, differs, by its name.
    """

    partition_key: str
    champion_version: int
    challenger_version: int
    rows: int
    champion_mean: float | None
    challenger_mean: float | None
    mean_difference: float | None
    mean_absolute_difference: float | None
    largest_difference: float | None
    correlation: float | None
    flips: dict[str, float]


def compare(
    con: DuckDBPyConnection, spec: PipelineSpec, score: str, partition_keys: Sequence[str] | None = None
) -> list[ChallengerComparison]:
    """The newest scoring of each challenger version against the live one; all partitions when none are named.

    `score` is the column compared, a model's first output. The warehouse is the current catalog.
    """
    pipeline, key = spec.name, spec.features.key
    if "scores" not in views_of(con, pipeline):
        return []
    columns = {row[0]: row[1] for row in con.execute(f"DESCRIBE {quote(pipeline)}.scores").fetchall()}
    if score not in columns:
        return []
    compared = [name for name in spec.decisions if columns.get(name) == "BOOLEAN"]
    compared += ["predicted_class"] if "predicted_class" in columns else []
    a, b = f"a.{quote(score)}", f"b.{quote(score)}"
    flips = "".join(
        f", avg((a.{column} IS DISTINCT FROM b.{column})::INT) AS {quote('flip ' + name)}"
        for name, column in ((name, quote(name)) for name in compared)
    )
    wanted = "" if partition_keys is None else "AND list_contains($keys, c.partition_key)"
    joined = " AND ".join(f"a.{quote(name)} = b.{quote(name)}" for name in key)
    result = con.execute(
        f"""
        WITH pairs AS (
          SELECT l.partition_key, l.scoring_id AS champion, e.model_version AS champion_version,
                 c.model_version AS challenger_version, max(c.scoring_id) AS challenger
          FROM ledger.live l JOIN ledger.scorings e ON e.scoring_id = l.scoring_id
          JOIN ledger.scorings c ON c.pipeline = l.pipeline AND c.partition_key = l.partition_key
          WHERE l.pipeline = {literal(pipeline)} AND c.role IN ('challenger', 'arm') AND c.status = 'scored' {wanted}
          GROUP BY ALL
        )
        SELECT p.partition_key, p.champion_version, p.challenger_version, count(*) AS rows,
               avg({a}) AS champion_mean, avg({b}) AS challenger_mean, avg({b} - {a}) AS mean_difference,
               avg(abs({b} - {a})) AS mean_absolute_difference, max(abs({b} - {a})) AS largest_difference,
               corr({a}, {b}) AS correlation{flips}
        FROM pairs p
        JOIN {quote(pipeline)}.scores a ON a.scoring_id = p.champion
        JOIN {quote(pipeline)}.scores b ON b.scoring_id = p.challenger AND {joined}
        GROUP BY ALL ORDER BY ALL
        """,
        {} if partition_keys is None else {"keys": list(partition_keys)},
    )
    return [_comparison(row, compared) for row in dicts(result)]


def _comparison(row: dict[str, Any], compared: Sequence[str]) -> ChallengerComparison:
    flips = {name: row.pop("flip " + name) for name in compared}
    if row["correlation"] is not None and row["correlation"] != row["correlation"]:
        row["correlation"] = None  # scores without variance
    return ChallengerComparison(**row, flips={name: share for name, share in flips.items() if share is not None})
