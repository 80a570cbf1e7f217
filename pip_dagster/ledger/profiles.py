"""Profiles: how each column of a scoring was distributed, as counts on the bins of its model's manifest."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Literal, NamedTuple

from pip_dagster import clock
from pip_dagster.ledger.record import ScoringEntry, dicts
from pip_dagster.ledger.rows import insert_many
from pip_dagster.sql.names import among, literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ColumnKind = Literal["feature", "score", "decision"]


@dataclass(frozen=True)
class Profile:
    """One column of one partition.

    `counts` are by the bins of the manifest's reference, of a decision false and true. `missing` and `unseen` rows are
    in none of them. `mean` and `sd` are of a number's values that are not missing. `gain` is a feature's share of the
    total gain of the model's splits; None where the model has none. `segment` and `segment_value`: of the rows with
    this value of this column only; None for all rows.
    """

    column_kind: ColumnKind
    name: str
    rows: int
    counts: list[int]
    missing: int
    unseen: int
    mean: float | None
    sd: float | None
    gain: float | None
    segment: str | None
    segment_value: str | None


@dataclass(frozen=True)
class ProfileEntry(Profile):
    """One row of `ledger.profiles`."""

    scoring_id: str
    pipeline: str
    partition_key: str
    manifest_digest: str
    made_at: datetime

    @classmethod
    def of(cls, entry: ScoringEntry, profile: Profile, manifest_digest: str) -> ProfileEntry:
        """The profile of a scoring on the bins of the manifest with this digest, which need not be its own."""
        return cls(
            **vars(profile),
            scoring_id=entry.scoring_id,
            pipeline=entry.pipeline,
            partition_key=entry.partition_key,
            manifest_digest=manifest_digest,
            made_at=clock.now(),
        )


def insert_profiles(con: DuckDBPyConnection, entries: Sequence[ProfileEntry]) -> None:
    """Append them, inside the transaction of their scorings. The warehouse is the current catalog."""
    insert_many(con, "profiles", entries)


def profiled_segments(
    con: DuckDBPyConnection, manifest_digest: str, scoring_ids: Collection[str]
) -> set[tuple[str, str | None]]:
    """Of these scorings, by which segments they have profiles on the bins of a version; None: of all rows."""
    rows = con.execute(
        "SELECT DISTINCT scoring_id, segment FROM ledger.profiles "
        f"WHERE manifest_digest = {literal(manifest_digest)} AND {among('scoring_id', scoring_ids)}"
    ).fetchall()
    return {*rows}


class LiveScoring(NamedTuple):
    """A partition, when it begins on the wall clock of its grid, and its live scoring."""

    partition_key: str
    partition_start: datetime
    scoring_id: str


class ProfileRow(NamedTuple):
    """What drift reads of a profile."""

    scoring_id: str
    column: tuple[ColumnKind, str, str | None, str | None]
    counts: list[int]
    missing: int
    unseen: int
    mean: float | None
    sd: float | None
    gain: float | None


def live_profiled(con: DuckDBPyConnection, pipeline: str, manifest_digest: str, zone: tzinfo) -> list[LiveScoring]:
    """The partitions whose live scoring is profiled on the bins of one version, in order."""
    rows = con.execute(
        "SELECT partition_key, epoch_us(partition_start), scoring_id FROM ledger.partitions "
        f"WHERE pipeline = {literal(pipeline)} AND is_live AND scoring_id IN (SELECT scoring_id FROM ledger.profiles "
        f"WHERE pipeline = {literal(pipeline)} AND manifest_digest = {literal(manifest_digest)}) "
        "ORDER BY partition_start"
    ).fetchall()
    return [LiveScoring(key, clock.instant(at).astimezone(zone), scoring) for key, at, scoring in rows]


def profile_rows(
    con: DuckDBPyConnection, pipeline: str, manifest_digest: str, scoring_ids: Sequence[str]
) -> list[ProfileRow]:
    """The profiles of these scorings on the bins of one version; of segments, those of scores and decisions.

    Row groups without these scorings are not read.
    """
    rows = con.execute(
        "SELECT scoring_id, column_kind, name, segment, segment_value, counts, missing, unseen, mean, sd, gain "
        f"FROM ledger.profiles WHERE pipeline = {literal(pipeline)} AND manifest_digest = {literal(manifest_digest)} "
        f"AND {among('scoring_id', scoring_ids)} AND (segment IS NULL OR column_kind <> 'feature')"
    ).fetchall()
    return [ProfileRow(row[0], row[1:5], *row[5:]) for row in rows]


def unprofiled(
    con: DuckDBPyConnection,
    pipeline: str,
    manifest_digest: str,
    segments: Collection[str] = (),
    of: Collection[str] | None = None,
) -> list[ScoringEntry]:
    """The live scorings that have no profile on the bins of this version, or none by a segment, newest first.

    Of these scorings, or of all: of many, to read the entries takes long.
    """
    named = "true" if of is None else among("scoring_id", of)
    all_of = f"HAVING count(DISTINCT segment) FILTER ({among('segment', segments)}) = {len({*segments})}"
    result = con.execute(
        f"SELECT s.* FROM (FROM ledger.scorings WHERE {named}) s "
        "JOIN ledger.live l USING (pipeline, partition_key, scoring_id) "
        "WHERE s.pipeline = $pipeline AND s.rows_scored > 0 AND s.purged_at IS NULL "
        "AND s.scoring_id NOT IN (SELECT scoring_id FROM ledger.profiles WHERE pipeline = $pipeline "
        f"AND manifest_digest = $manifest AND {named} GROUP BY scoring_id {all_of if segments else ''}) "
        "ORDER BY s.partition_start DESC",
        {"pipeline": pipeline, "manifest": manifest_digest},
    )
    return [ScoringEntry(**row) for row in dicts(result)]
