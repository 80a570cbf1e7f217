"""Profiles: how each column of a scoring was distributed, as counts on the bins of its model's manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pip_dagster import clock
from pip_dagster.ledger.record import ScoringEntry, dicts
from pip_dagster.ledger.rows import insert_rows
from pip_dagster.sql.names import quote_all

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ColumnKind = Literal["feature", "score", "decision"]


@dataclass(frozen=True)
class Profile:
    """One column of one partition.

    `counts` are by the bins of the manifest's reference, of a decision false and true. `missing` and `unseen` rows are
    in none of them. `mean` and `sd` are of a number's values that are not missing. `gain` is a feature's share of the
    total gain of the model's splits; None where the model has none.
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
    insert_rows(con, "profiles", entries)


def live_profiles(
    con: DuckDBPyConnection, pipeline: str, manifest_digest: str, *, last: int | None = None
) -> list[ProfileEntry]:
    """The profiles of live scorings on the bins of one version, in the partitions' order; of the newest `last`."""
    columns = quote_all([each.name for each in fields(ProfileEntry)])
    newest = "" if last is None else f"ORDER BY partition_start DESC LIMIT {int(last)}"
    result = con.execute(
        "WITH profiled AS (SELECT * FROM ledger.profiles WHERE pipeline = $pipeline AND manifest_digest = $manifest), "
        "live AS (SELECT scoring_id, partition_start FROM ledger.partitions WHERE pipeline = $pipeline AND is_live "
        f"AND scoring_id IN (SELECT scoring_id FROM profiled) {newest}) "
        f"SELECT {columns} FROM profiled JOIN live USING (scoring_id) ORDER BY partition_start, column_kind, name",
        {"pipeline": pipeline, "manifest": manifest_digest},
    )
    return [ProfileEntry(**row) for row in dicts(result)]


def unprofiled(con: DuckDBPyConnection, pipeline: str, manifest_digest: str) -> list[ScoringEntry]:
    """The live scorings that have no profile on the bins of this version, newest first."""
    result = con.execute(
        "SELECT s.* FROM ledger.scorings s JOIN ledger.live l USING (pipeline, partition_key, scoring_id) "
        "WHERE s.pipeline = $pipeline AND s.rows_scored > 0 AND s.scoring_id NOT IN (SELECT scoring_id FROM "
        "ledger.profiles WHERE pipeline = $pipeline AND manifest_digest = $manifest) ORDER BY s.partition_start DESC",
        {"pipeline": pipeline, "manifest": manifest_digest},
    )
    return [ScoringEntry(**row) for row in dicts(result)]
