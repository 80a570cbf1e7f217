"""Judgements of drift: one for each time that a live partition was judged, with its figures in `ledger.drift`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pip_dagster.ledger.rows import insert_rows
from pip_dagster.sql.names import among, literal, quote_all
from pip_dagster.warehouse.arrow import arrow_rows
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


class StoredJudgement(NamedTuple):
    """The newest judgement of a scoring. `columns`: how many were judged, those without rows included."""

    judgement_id: str
    basis: str
    columns: int
    max_psi: float | None


def newest_judgements(con: DuckDBPyConnection, pipeline: str) -> dict[tuple[str, str], StoredJudgement]:
    """By partition and scoring."""
    rows = con.execute(
        "SELECT partition_key, scoring_id, max(judgement_id), arg_max(basis, judgement_id), "
        "arg_max(columns, judgement_id), arg_max(max_psi, judgement_id) "
        f"FROM ledger.judgements WHERE pipeline = {literal(pipeline)} GROUP BY partition_key, scoring_id"
    ).fetchall()
    return {(key, scoring): StoredJudgement(*of) for key, scoring, *of in rows}


def figures_of(con: DuckDBPyConnection, judgement_ids: Sequence[str], columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """These columns of `ledger.drift`, the judgement's id first, in no order.

    Row groups without these judgements are not read.
    """
    return con.execute(
        f"SELECT judgement_id, {quote_all(columns)} FROM ledger.drift WHERE {among('judgement_id', judgement_ids)}"
    ).fetchall()


def insert_judgements(con: DuckDBPyConnection, judgements: Sequence[DriftJudgement], figures: pa.Table) -> None:
    """Append them in one transaction, `figures` with the columns of `ledger.drift`.

    The warehouse is the current catalog.
    """
    with arrow_rows(con, _GIVEN, figures), transaction(con):
        insert_rows(con, "judgements", judgements)
        con.execute(f"INSERT INTO ledger.drift BY NAME SELECT * FROM {_GIVEN}")
