"""What a rollback reads from the ledger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pip_dagster.ledger.arms import Arm
from pip_dagster.ledger.record import dicts
from pip_dagster.ledger.rollback_plan import Change, History, PastScores

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.key_order import Between

_SCORES = "s.scoring_id, s.model_name, s.model_version AS version, s.feature_digest"


def histories(con: DuckDBPyConnection, pipeline: str, partitions: Between) -> list[History]:
    """The live changes of each of these partitions that has any, in the order of time."""
    rows = dicts(
        con.execute(
            f"SELECT c.partition_key, s.partition_start, s.partition_end, c.change_id, c.kind, c.made_at, {_SCORES} "
            "FROM ledger.live_changes c JOIN ledger.scorings s ON s.scoring_id = c.scoring_id "
            f"WHERE c.pipeline = $pipeline AND {partitions.sql('s.partition_start')} "
            "ORDER BY s.partition_start, c.change_id",
            {"pipeline": pipeline},
        )
    )
    arms = _arms(con, pipeline)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["partition_key"], []).append(row)
    return [
        History(
            key,
            listed[-1]["partition_start"],
            listed[-1]["partition_end"],
            [
                Change(row["change_id"], row["kind"], row["made_at"], _scores(row, arms.get(row["change_id"], ())))
                for row in listed
            ],
        )
        for key, listed in found.items()
    ]


def _arms(con: DuckDBPyConnection, pipeline: str) -> dict[str, list[tuple[Arm, tuple[str, int]]]]:
    """Change id → its arms by bucket, each with the model and version that scored it."""
    columns = ", ".join(f"a.{field.name}" for field in fields(Arm))
    rows = con.execute(
        f"SELECT a.change_id, s.model_name, s.model_version, {columns} FROM ledger.arms a "
        "JOIN ledger.scorings s ON s.scoring_id = a.scoring_id WHERE a.pipeline = $pipeline "
        "ORDER BY a.change_id, a.low",
        {"pipeline": pipeline},
    ).fetchall()
    found: dict[str, list[tuple[Arm, tuple[str, int]]]] = {}
    for change_id, model, version, *of in rows:
        found.setdefault(change_id, []).append((Arm(*of), (model, version)))
    return found


def scored(con: DuckDBPyConnection, pipeline: str, model: str, version: int) -> dict[str, PastScores]:
    """The newest scores by one version of each partition; what was blocked or failed is none."""
    rows = dicts(
        con.execute(
            f"SELECT s.partition_key, {_SCORES} FROM ledger.scorings s "
            "WHERE s.pipeline = $pipeline AND s.status = 'scored' AND s.role = 'champion' "
            "AND s.model_name = $model AND s.model_version = $version "
            "QUALIFY row_number() OVER (PARTITION BY s.partition_key ORDER BY s.scoring_id DESC) = 1",
            {"pipeline": pipeline, "model": model, "version": version},
        )
    )
    return {row["partition_key"]: _scores(row) for row in rows}


def _scores(row: dict[str, Any], arms: Sequence[tuple[Arm, tuple[str, int]]] = ()) -> PastScores:
    return PastScores(
        *(row["scoring_id"], row["model_name"], row["version"], row["feature_digest"]),
        tuple(arm for arm, _ in arms),
        tuple(dict.fromkeys(model for _, model in arms)),
    )


def is_unfinished(con: DuckDBPyConnection, rollback_id: str) -> bool:
    """Whether a rollback that moved the alias was killed before its transaction."""
    done = con.execute("SELECT subject FROM ledger.audit WHERE action = 'rollback'").fetchall()
    return rollback_id not in {json.loads(subject)["rollback_id"] for (subject,) in done}


def is_unpublished(con: DuckDBPyConnection, pipeline: str) -> bool:
    """Whether a rollback was committed and then killed before the published files showed it."""
    found = con.execute(
        "SELECT count(*) FROM ledger.live_changes c ANTI JOIN ledger.publications p ON p.change_id = c.change_id "
        "WHERE c.pipeline = $pipeline AND c.kind = 'rollback'",
        {"pipeline": pipeline},
    ).fetchone()
    return bool(found and found[0])
