"""Single rows of a replayed scoring, whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pip_dagster.flow.stage import Stage
from pip_dagster.ledger.arms import Arm
from pip_dagster.ledger.record import ScoringEntry, dicts
from pip_dagster.replay.recall import Recalled, ReplayError
from pip_dagster.sql.names import literal, quote, quote_all
from pip_dagster.warehouse.buckets import bucket_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec


@dataclass(frozen=True)
class RecordedRow:
    """A requested row: its recorded features, and its scores as stored and as replayed (None: it has none).

    `arm`: in a partition that is split, the arm that decides about it; `live`: whether this very scoring does.
    """

    key: str
    features: dict[str, Any] | None
    stored: dict[str, Any] | None
    replayed: dict[str, Any] | None
    quarantined: bool
    arm: str | None = None
    live: bool | None = None


def recorded_rows(
    stage: Stage, spec: PipelineSpec, recalled: Recalled, entry: ScoringEntry, keys: Sequence[str]
) -> tuple[RecordedRow, ...]:
    """The rows of a scoring with these keys: the value of a single key column as text, of several a JSON list.

    Call it once the rows are scored again.

    Raises:
        ReplayError: a key does not have the declared number of values.
    """
    con = stage.con
    names = [name for name in spec.features.key if name in recalled.carried] or list(recalled.carried)
    found = []
    for text in keys:
        condition = _row_condition(names, text)
        in_partition = f"partition_key = {literal(entry.partition_key)} AND {condition}"
        features = _row(con, f"SELECT * EXCLUDE (partition_key) FROM {stage.features} WHERE {in_partition}")
        scores = quote_all(recalled.score_columns)
        of_scoring = f"scoring_id = {literal(entry.scoring_id)} AND {condition}"
        stored = _row(con, f"SELECT {scores} FROM {recalled.scores} WHERE {of_scoring}")
        replayed = _row(
            con,
            f"SELECT * EXCLUDE (partition_key, {quote_all(recalled.carried)}) FROM {stage.scores} WHERE {in_partition}",
        )
        by = f"scoring_id = {literal(entry.quarantined_by)} AND {condition}"
        apart = _row(con, f"SELECT 1 FROM {recalled.quarantine} WHERE {by}")
        arm = _arm(con, recalled.arms.get(entry.partition_key, ()), f"{recalled.scores} WHERE {of_scoring}")
        found.append(
            RecordedRow(
                *(text, features, stored, replayed, apart is not None),
                arm.arm if arm else None,
                arm.scoring_id == entry.scoring_id if arm else None,
            )
        )
    return tuple(found)


def _arm(con: DuckDBPyConnection, arms: Sequence[Arm], stored_row: str) -> Arm | None:
    """The arm into whose buckets the stored row falls."""
    if not arms:
        return None
    row = _row(con, f"SELECT {bucket_sql(arms[0].salt, json.loads(arms[0].unit))} AS bucket FROM {stored_row}")
    return next((arm for arm in arms if row and arm.low <= row["bucket"] < arm.high), None)


def _row_condition(names: Sequence[str], text: str) -> str:
    values: Any = [text]
    if len(names) > 1:
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        if not isinstance(values, list) or len(values) != len(names):
            raise ReplayError(
                f"a key of ({', '.join(names)}) is a JSON list of {len(names)} values; one that was given is not"
            )
    pairs = zip(names, values, strict=True)
    return " AND ".join(f"{quote(name)}::VARCHAR = {literal(str(value))}" for name, value in pairs)


def _row(con: DuckDBPyConnection, query: str) -> dict[str, Any] | None:
    return next(iter(dicts(con.execute(query))), None)
