"""Judgements of drift: one for each time that a live partition was judged, with its figures in `ledger.drift`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster.ledger.rows import insert_rows
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

_GIVEN = "pip_given_drift"


@dataclass(frozen=True)
class DriftJudgement:
    """One row of `ledger.judgements`. `basis`: a digest of the rules and of the scorings that were compared."""

    judgement_id: str
    pipeline: str
    partition_key: str
    scoring_id: str
    model_version: int
    manifest_digest: str
    basis: str
    columns: int
    in_alarm: int
    max_psi: float | None
    judged_at: datetime


def bases_of(con: DuckDBPyConnection, pipeline: str) -> dict[tuple[str, str], str]:
    """Partition and scoring → the basis of its newest judgement."""
    rows = con.execute(
        "SELECT partition_key, scoring_id, arg_max(basis, judgement_id) FROM ledger.judgements "
        f"WHERE pipeline = {literal(pipeline)} GROUP BY ALL"
    ).fetchall()
    return {(key, scoring): basis for key, scoring, basis in rows}


def insert_judgements(con: DuckDBPyConnection, judgements: Sequence[DriftJudgement], figures: pa.Table) -> None:
    """Append them in one transaction, `figures` with the columns of `ledger.drift`.

    The warehouse is the current catalog.
    """
    con.register(_GIVEN, figures)
    try:
        with transaction(con):
            insert_rows(con, "judgements", judgements)
            con.execute(f"INSERT INTO ledger.drift BY NAME SELECT * FROM {_GIVEN}")
    finally:
        con.unregister(_GIVEN)
