"""Evaluations: how good a scoring's rows were by the labels that they had then. Rows are added and never changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pip_dagster.clock import instant
from pip_dagster.ledger.live_partitions import LivePartition, Revision
from pip_dagster.ledger.record import dicts
from pip_dagster.ledger.rows import insert_many, insert_rows
from pip_dagster.sql.names import among, literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_NUMBERS = {"sql_type": "DOUBLE[]"}


@dataclass(frozen=True)
class LabelEvaluation:
    """One row of `ledger.evaluations`: the rows of a scoring, or of its arm, and the labels that they had.

    Attributes:
        basis: What decided whose rows they are: the scoring's id, or the live change's where the partition is split.
        labels_digest: Of the keys and outcomes of the labelled rows.
        segments: The columns by whose values the rows were divided.
        score_psi: PSI beyond noise of the labelled rows' scores against those of all rows; None without a label.
        unlike_rest: Whether the labelled rows differ from all by more than 0.1, and not by chance.
        mature_at: From when the figures count: all labels can be there by then. None without a label.
        restates: The evaluation whose figures counted, or whose labels were changed, before this one; None for news.
    """

    evaluation_id: str
    pipeline: str
    partition_key: str
    partition_start: datetime
    partition_end: datetime
    scoring_id: str
    basis: str
    arm: str
    model_name: str
    model_version: int
    feature_revision: str
    labels_digest: str
    segments: list[str]
    rows: int
    labelled: int
    score_psi: float | None
    unlike_rest: bool
    mature_at: datetime | None
    restates: str | None
    evaluated_at: datetime

    @property
    def coverage(self) -> float:
        """The share of rows with a label."""
        return self.labelled / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class PerformanceRow:
    """One row of `ledger.performance`: all rows of an evaluation, or those of one value of a segment.

    `figures`, `counts` (rows of each), `lows`, `highs` and `reweighted` are in the order of `metrics`. `reweighted` is
    empty unless the labelled rows are unlike the rest: then rows count so that the scores are distributed as those of
    all. `sums` is what windows are added up from: `statistics.metrics.sums`.
    """

    evaluation_id: str
    pipeline: str
    partition_key: str
    scoring_id: str
    segment: str | None
    segment_value: str | None
    rows: int
    labelled: int
    metrics: list[str]
    figures: list[float | None] = field(metadata=_NUMBERS)
    counts: list[int]
    lows: list[float | None] = field(metadata=_NUMBERS)
    highs: list[float | None] = field(metadata=_NUMBERS)
    reweighted: list[float | None] = field(metadata=_NUMBERS)
    sums: str


@dataclass(frozen=True)
class Part:
    """The rows of a partition for which one scoring is live; `basis` as in `LabelEvaluation`.

    `purged_at`: from then on the rows are gone, and what was found of them is all that will be known.
    """

    live: LivePartition
    basis: str
    arm: str
    model_name: str
    model_version: int
    purged_at: datetime | None = None

    @property
    def identity(self) -> tuple[str, str, str]:
        """What the newest evaluation of these rows is found by."""
        return self.basis, self.live.scoring_id, self.arm


def live_parts(
    con: DuckDBPyConnection, pipeline: str, keys: Iterable[str] | None = None, *, purged: bool = False
) -> list[Part]:
    """What is live, of these partitions or of all, oldest first; of a partition that is split, each arm.

    `purged`: also of those whose rows were purged. The warehouse is the current catalog. Instants are read as numbers:
    to convert many of them takes long.
    """
    of = literal(pipeline)
    of_keys = "true" if keys is None else among("partition_key", keys)
    rows = con.execute(
        "SELECT s.partition_key, epoch_us(s.partition_start), epoch_us(s.partition_end), s.scoring_id, s.table_name, "
        "  s.rows_scored, s.feature_revision, e.table_name, l.basis, l.arm, s.model_name, s.model_version, "
        "  epoch_us(s.purged_at) "
        "FROM (SELECT DISTINCT scoring_id, arm, CASE WHEN low IS NULL THEN scoring_id ELSE change_id END AS basis "
        f"  FROM ledger.live_arms WHERE pipeline = {of} AND {of_keys}) l "
        "JOIN ledger.scorings s ON s.scoring_id = l.scoring_id "
        "JOIN (SELECT revision, any_value(table_name) AS table_name FROM ledger.extractions "
        f"  WHERE pipeline = {of} AND {of_keys} GROUP BY revision) e ON e.revision = s.feature_revision "
        f"WHERE s.pipeline = {of} AND {of_keys} AND s.rows_scored > 0 AND (s.purged_at IS NULL OR {purged}) "
        "ORDER BY s.partition_start, l.arm <> 'champion', l.arm"
    ).fetchall()
    return [_part(*row) for row in rows]


def _part(key: str, start: int, end: int, *row: Any) -> Part:
    scoring_id, table, count, revision, features, basis, arm, model, version, purged_at = row
    live = LivePartition(key, instant(start), instant(end), scoring_id, table, count, (Revision(revision, features),))
    return Part(live, basis, arm, model, version, None if purged_at is None else instant(purged_at))


def newest_evaluations(con: DuckDBPyConnection, pipeline: str) -> dict[tuple[str, str, str], LabelEvaluation]:
    """The newest evaluation of everything that was evaluated, live or not, by `Part.identity`."""
    found = con.execute(
        f"SELECT * FROM ledger.evaluations WHERE pipeline = {literal(pipeline)} "
        "QUALIFY row_number() OVER (PARTITION BY basis, scoring_id, arm ORDER BY evaluation_id DESC) = 1"
    )
    return {(each.basis, each.scoring_id, each.arm): each for each in _evaluations(dicts(found))}


def live_evaluations(con: DuckDBPyConnection, pipeline: str) -> list[LabelEvaluation]:
    """The newest evaluation of what is live, oldest partition first."""
    found = con.execute(
        f"SELECT * FROM ledger.live_evaluations WHERE pipeline = {literal(pipeline)} "
        "ORDER BY partition_start, arm <> 'champion', arm"
    )
    return _evaluations(dicts(found))


def performance_rows(
    con: DuckDBPyConnection, pipeline: str, evaluation_ids: Sequence[str], *, all_rows: bool = False
) -> list[PerformanceRow]:
    """The figures of these evaluations; with `all_rows`, without those of segments."""
    only = " AND segment IS NULL" if all_rows else ""
    found = con.execute(
        f"SELECT * FROM ledger.performance WHERE pipeline = {literal(pipeline)} "
        f"AND {among('evaluation_id', evaluation_ids)}{only} ORDER BY partition_key, segment, segment_value",
    )
    return [PerformanceRow(**row) for row in dicts(found)]


def insert_evaluations(
    con: DuckDBPyConnection, evaluations: Sequence[LabelEvaluation], rows: Sequence[PerformanceRow]
) -> None:
    """Append them, inside a transaction. The warehouse is the current catalog."""
    insert_rows(con, "evaluations", evaluations)
    insert_many(con, "performance", rows)


def _evaluations(rows: Iterable[dict[str, object]]) -> list[LabelEvaluation]:
    return [LabelEvaluation(**row) for row in rows]  # type: ignore[arg-type]
