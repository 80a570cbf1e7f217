"""Estimates of performance without labels, and what labels showed later. Rows are added and never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.ledger.record import dicts
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.tables import refresh_views, views_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class EstimateEntry:
    """One row of `ledger.estimates`: a metric of a scoring with its 95% band; or, without a metric, why none."""

    estimate_id: str
    pipeline: str
    partition_key: str
    scoring_id: str
    manifest_digest: str
    model_version: int
    rows: int
    metric: str
    value: float | None
    low: float | None
    high: float | None
    calibrator_digest: str | None
    reason: str | None
    made_at: datetime


@dataclass(frozen=True)
class GradedEstimate:
    """An estimate of a live scoring; `truth`, `hit` and `side` (-1 below the band, 1 above) once its labels count.

    `calibrator` is the kind of what it was made with.
    """

    partition_key: str
    partition_start: datetime
    scoring_id: str
    rows: int
    metric: str
    value: float | None
    low: float | None
    high: float | None
    calibrator_digest: str | None
    calibrator: str | None
    reason: str | None
    truth: float | None
    hit: bool | None
    side: int | None


@dataclass(frozen=True)
class StoredScoring:
    """A live scoring of one version."""

    partition_key: str
    partition_start: datetime
    partition_end: datetime
    scoring_id: str
    feature_revision: str
    rows: int


@dataclass(frozen=True)
class MatureScoring(StoredScoring):
    """One whose labels count, with the digest of its labels."""

    labels_digest: str
    labelled: int


def insert_estimates(con: DuckDBPyConnection, entries: Sequence[EstimateEntry]) -> None:
    """Append them, inside a transaction. The warehouse is the current catalog."""
    insert_rows(con, "estimates", entries)
    for name in {each.pipeline for each in entries}:
        if "estimates" not in views_of(con, name):  # of a pipeline that an earlier version created
            refresh_views(con, name)


def graded_estimates(
    con: DuckDBPyConnection, pipeline: str, manifest_digest: str, *, now: datetime
) -> list[GradedEstimate]:
    """The estimates of what is live of one version, oldest first; labels that are not mature at `now` do not grade."""
    counts = f"CASE WHEN g.mature_at <= {literal(now.isoformat())}::TIMESTAMPTZ THEN g.{{0}} END AS {{0}}"
    graded = ", ".join(counts.format(name) for name in ("truth", "hit", "side"))
    found = con.execute(
        "SELECT g.partition_key, s.partition_start, g.scoring_id, g.rows, g.metric, g.value, g.low, g.high, "
        f"g.calibrator_digest, c.kind AS calibrator, g.reason, {graded} FROM ledger.graded_estimates g "
        "LEFT JOIN (SELECT digest, any_value(kind) AS kind FROM ledger.calibrators GROUP BY digest) c "
        "ON c.digest = g.calibrator_digest "
        "JOIN ledger.scorings s ON s.scoring_id = g.scoring_id AND s.pipeline = g.pipeline "
        f"WHERE g.pipeline = {literal(pipeline)} AND g.manifest_digest = {literal(manifest_digest)} AND g.is_live "
        "ORDER BY s.partition_start, g.estimate_id"
    )
    return [GradedEstimate(**row) for row in dicts(found)]


def reasons_of(con: DuckDBPyConnection, pipeline: str, manifest_digest: str) -> dict[str, str]:
    """Scoring → the newest recorded reason why it has no estimate."""
    found = con.execute(
        "SELECT scoring_id, max_by(reason, estimate_id) FROM ledger.estimates "
        "WHERE pipeline = $pipeline AND manifest_digest = $manifest AND metric = '' GROUP BY scoring_id",
        {"pipeline": pipeline, "manifest": manifest_digest},
    )
    return dict(found.fetchall())


def live_scorings(
    con: DuckDBPyConnection, pipeline: str, manifest_digest: str, *, without_estimate: bool = False
) -> list[StoredScoring]:
    """The live scorings of one version with rows, oldest first; or those that have no estimate of any metric."""
    but = (
        "AND s.scoring_id NOT IN (SELECT scoring_id FROM ledger.estimates WHERE pipeline = $pipeline AND metric <> '')"
        if without_estimate
        else ""
    )
    found = con.execute(
        # Instants are read as numbers: to convert many of them takes long.
        "SELECT s.partition_key, epoch_us(s.partition_start) AS partition_start, "
        "epoch_us(s.partition_end) AS partition_end, s.scoring_id, s.feature_revision, s.rows_scored AS rows "
        "FROM ledger.scorings s JOIN ledger.live l USING (pipeline, partition_key, scoring_id) "
        "WHERE s.pipeline = $pipeline AND s.manifest_digest = $manifest AND s.rows_scored > 0 "
        f"AND s.purged_at IS NULL {but} ORDER BY s.partition_start",
        {"pipeline": pipeline, "manifest": manifest_digest},
    )
    instants = ("partition_start", "partition_end")
    return [StoredScoring(**row | {name: clock.instant(row[name]) for name in instants}) for row in dicts(found)]


def mature_scorings(
    con: DuckDBPyConnection, pipeline: str, manifest_digest: str, *, now: datetime
) -> list[MatureScoring]:
    """The live scorings of one version whose labels count at `now`, oldest first."""
    found = con.execute(
        "SELECT e.partition_key, e.partition_start, e.partition_end, e.scoring_id, e.feature_revision, e.rows, "
        "e.labels_digest, e.labelled FROM ledger.live_evaluations e "
        "JOIN ledger.scorings s ON s.scoring_id = e.scoring_id AND s.pipeline = e.pipeline "
        "WHERE e.pipeline = $pipeline AND s.manifest_digest = $manifest AND e.labelled > 0 AND e.mature_at <= $now "
        "AND s.purged_at IS NULL "
        "ORDER BY e.partition_start",
        {"pipeline": pipeline, "manifest": manifest_digest, "now": now},
    )
    return [MatureScoring(**row) for row in dicts(found)]
