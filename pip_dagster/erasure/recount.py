"""What the ledger says of rows after some were erased: numbers and digests of what is left, no value of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.erasure.place import ErasureRequest
from pip_dagster.erasure.tables import SubjectTable, tables_of
from pip_dagster.evidence.contents import IDS, covered_columns
from pip_dagster.ledger.rows import insert_many
from pip_dagster.sql.names import among, literal
from pip_dagster.warehouse.digest import digest_sql, row_set_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Figures of scorings that lost rows. What is monitored computes them again.
_FIGURES = ("profiles", "evaluations", "performance", "judgements", "drift", "estimates")
REVISIONS = "pip_erased_revisions"  # temporary: pipeline, id of the revisions of features that lost rows


@dataclass(frozen=True)
class _LossEntry:
    """One row of `ledger.erased_partitions`."""

    erasure_id: str
    pipeline: str
    partition_key: str
    scoring_id: str | None
    feature_revision: str | None
    rows_removed: int
    made_at: datetime


def measure(con: DuckDBPyConnection, table: SubjectTable, scorings: Sequence[str]) -> None:
    """Numbers of rows and digests of what is left, as they are when rows are stored."""
    if table.kind in ("scores", "features"):
        id_ = IDS[table.kind]
        covered = covered_columns(table.kind, table.columns)
        digest = digest_sql(covered, "coalesce(f.n, 0)", "coalesce(f.total, 0)", "coalesce(f.bits, 0)")
        revisions = f"SELECT DISTINCT id FROM {REVISIONS} WHERE pipeline = {literal(table.pipeline)}"
        ids = scorings if table.kind == "scores" else [row[0] for row in con.execute(revisions).fetchall()]
        found = f"SELECT {id_} AS id, {row_set_sql(covered)} FROM {table.sql} WHERE {among(id_, ids)} GROUP BY {id_}"
    if table.kind == "scores" and scorings:
        con.execute(
            f"UPDATE ledger.scorings SET score_digest = g.digest, rows_scored = g.n, mean_score = NULL, "
            f"min_score = NULL, max_score = NULL FROM (SELECT s.scoring_id AS of, coalesce(f.n, 0)::BIGINT AS n, "
            f"{digest} AS digest FROM ledger.scorings s LEFT JOIN ({found}) f(id, n, total, bits) "
            f"ON f.id = s.scoring_id WHERE s.pipeline = {literal(table.pipeline)} "
            f"AND s.table_name = {literal(table.name)} AND {among('s.scoring_id', scorings)}) g "
            "WHERE ledger.scorings.scoring_id = g.of"
        )
    elif table.kind == "features":
        measured = (
            f"SELECT r.id AS of, coalesce(f.n, 0)::BIGINT AS n, {digest} AS digest FROM (SELECT DISTINCT e.revision AS "
            f"id FROM ledger.extractions e JOIN {REVISIONS} r ON r.pipeline = e.pipeline AND r.id = e.revision "
            f"WHERE e.pipeline = {literal(table.pipeline)} AND e.table_name = {literal(table.name)}) r "
            f"LEFT JOIN ({found}) f(id, n, total, bits) ON f.id = r.id"
        )
        con.execute(
            f"UPDATE ledger.extractions SET feature_digest = g.digest, rows_extracted = g.n FROM ({measured}) g "
            f"WHERE ledger.extractions.revision = g.of AND ledger.extractions.pipeline = {literal(table.pipeline)}"
        )
        con.execute(
            f"UPDATE ledger.scorings SET feature_digest = g.digest, rows_in = g.n FROM ({measured}) g "
            f"WHERE ledger.scorings.feature_revision = g.of AND ledger.scorings.pipeline = {literal(table.pipeline)}"
        )


def note_lost(
    con: DuckDBPyConnection, erasure_id: str, lost: Mapping[tuple[str, str, str | None, str | None], int]
) -> None:
    """Note how many rows each partition lost, by pipeline, partition, scoring and revision."""
    now = clock.now()
    insert_many(con, "erased_partitions", [_LossEntry(erasure_id, *of, rows, now) for of, rows in lost.items()])


def forget(
    con: DuckDBPyConnection,
    request: ErasureRequest,
    scorings: Sequence[str],
    of_partition: Mapping[tuple[str, str, str | None, str | None], int],
) -> None:
    """What the ledger has of values in the erased rows; and note what each partition lost."""
    partitions: dict[str, set[str]] = {}
    for pipeline, key, *_ in of_partition:
        partitions.setdefault(pipeline, set()).add(key)
    note_lost(con, request.erasure_id, of_partition)
    if scorings:
        for name in _FIGURES:
            con.execute(f"DELETE FROM ledger.{name} WHERE {among('scoring_id', scorings)}")
        quarantined = " UNION ALL ".join(
            f"SELECT scoring_id FROM {table.sql}" for table in tables_of(con, request) if table.kind == "quarantine"
        )
        counts = f"SELECT scoring_id, count(*) AS n FROM ({quarantined}) GROUP BY 1" if quarantined else None
        if counts:
            con.execute(
                f"UPDATE ledger.scorings SET rows_quarantined = g.n FROM (SELECT s.scoring_id AS of, coalesce(c.n, 0) "
                f"AS n FROM ledger.scorings s LEFT JOIN ({counts}) c ON c.scoring_id = s.scoring_id WHERE "
                f"{among('s.scoring_id', scorings)} AND s.rows_quarantined > 0) g "
                "WHERE ledger.scorings.scoring_id = g.of"
            )
    for pipeline, keys in partitions.items():
        of = f"pipeline = {literal(pipeline)} AND {among('partition_key', sorted(keys))}"
        forget_values(con, of)


def forget_values(con: DuckDBPyConnection, of: str) -> None:
    """What checks, deliveries and published files show of the rows of partitions; `of`: the condition for these."""
    # A split's is no value of a row: `status` reads from it whether it was decided.
    kept = "CASE WHEN section = 'split' THEN observed END"
    con.execute(f"UPDATE ledger.checks SET examples = NULL, observed = {kept} WHERE {of}")
    con.execute(f"UPDATE ledger.deliveries SET digest = NULL WHERE {of}")
    con.execute(f"DELETE FROM ledger.published_digests WHERE {of}")
