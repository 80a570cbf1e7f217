"""What produced each partition: the ledger's rows, each written in the transaction of what it records."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster import clock
from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import WarehouseError
from pip_dagster.sql.names import among

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


# In the findings of a challenger or arm: the champion's scoring, if that quarantined rows.
ROWS_OF = "rows_of"


# Why a scoring is live. scored: a run scored the partition by the alias's version. pinned: a person requested that
# version, or features as known. rollback: a person rolled back to it. The last two take precedence over the alias
# until it moves again.
LiveKind = Literal["scored", "pinned", "rollback"]


def new_id(after: str | None = None) -> str:
    """An id that sorts by the time of its creation, to the microsecond, and differs between processes.

    It sorts behind every id that this process has given, or read with its warehouse, and behind `after`, whatever the
    clocks of their machines showed.

    Raises:
        WarehouseError: `after` is of a time that no clock shows.
    """
    at = f"{clock.now():{clock.OF_IDS}}"
    if after and at <= after[: len(at)]:
        if after >= f"{clock.LAST:{clock.OF_IDS}}":
            raise WarehouseError(
                f"The ledger has an entry {after!r} of a time that no clock shows, and none can follow it. Restore the "
                "warehouse from a backup; `pip-dagster audit verify` says what else has changed."
            )
        at = f"{datetime.strptime(after[: len(at)], clock.OF_IDS) + timedelta(microseconds=1):{clock.OF_IDS}}"
    return f"{at}-{secrets.token_hex(4)}"


@dataclass(frozen=True)
class RunInfo:
    """Who requested a run: the orchestrator's run, the person or service behind it, its backfill, why, and when.

    `pinned_version`: the version that a person requested instead of the alias's. `as_known`: a person requested the
    features as known at each partition's close. `why` is for people; no program reads it.
    """

    run_id: str
    made_by: str
    backfill_id: str | None = None
    why: str = ""
    requested_at: datetime = field(default_factory=clock.now)
    pinned_version: int | None = None
    as_known: bool = False

    @property
    def kind(self) -> LiveKind:
        """The kind of the live changes that the run records."""
        return "pinned" if self.pinned_version is not None or self.as_known else "scored"

    @property
    def live_why(self) -> str:
        """Why the run's scorings are live, for people."""
        pinned = f"pinned to v{self.pinned_version}" if self.pinned_version is not None else ""
        known = "as known at each partition's close" if self.as_known else ""
        return ": ".join(filter(None, (" ".join(filter(None, (pinned, known))), self.why)))


@dataclass(frozen=True)
class ExtractionEntry:
    """One row of `ledger.extractions`."""

    extraction_id: str
    pipeline: str
    partition_key: str
    partition_start: datetime
    partition_end: datetime
    revision: str
    is_new: bool
    table_name: str
    rows_extracted: int
    feature_digest: str
    source_digests: str
    sql_digest: str
    seconds: float
    run_id: str
    made_by: str
    made_at: datetime
    provisional: bool | None = False
    declared_parts: str | None = None
    cpu_seconds: float | None = None
    peak_memory: int | None = None
    purged_by: str | None = None
    purged_at: datetime | None = None


@dataclass(frozen=True)
class ScoringEntry:
    """One row of `ledger.scorings`: the four things a prediction is a function of, and the result."""

    scoring_id: str
    pipeline: str
    partition_key: str
    partition_start: datetime
    partition_end: datetime
    status: Literal["scored", "blocked", "failed"]
    reason: str | None
    role: str
    model_name: str
    model_version: int | None
    model_digest: str | None
    manifest_digest: str | None
    feature_revision: str | None
    feature_digest: str | None
    source_digests: str | None
    code_digest: str
    engine: str
    device: str | None
    device_reason: str | None
    threads: int | None
    table_name: str | None
    rows_in: int | None
    rows_scored: int | None
    rows_quarantined: int | None
    findings: str | None
    mean_score: float | None
    min_score: float | None
    max_score: float | None
    score_digest: str | None
    seconds: float | None
    run_id: str
    made_by: str
    made_at: datetime
    provisional: bool | None = False
    inputs_digest: str | None = None
    declared_parts: str | None = None
    declared_row: str | None = None
    cpu_seconds: float | None = None
    peak_memory: int | None = None
    cluster: str | None = None
    tasks: int | None = None
    nodes: int | None = None
    nonce: str | None = None
    lock_seconds: float | None = None
    purged_by: str | None = None
    purged_at: datetime | None = None

    @property
    def rows_per_second(self) -> float | None:
        """Throughput of guard, model and staging together."""
        return self.rows_scored / self.seconds if self.rows_scored and self.seconds else None

    @property
    def quarantined_by(self) -> str:
        """The scoring whose quarantined rows it did not score: itself, or the champion's."""
        return str(self.found.get(ROWS_OF, self.scoring_id))

    @property
    def found(self) -> dict[str, Any]:
        """The findings, parsed."""
        return dict(json.loads(self.findings)) if self.findings else {}


def latest_extractions(con: DuckDBPyConnection, pipeline: str, partition_keys: list[str]) -> dict[str, ExtractionEntry]:
    """The newest extraction of each of these partitions that has one."""
    result = con.execute(
        f"SELECT * FROM ledger.extractions WHERE pipeline = $pipeline AND {among('partition_key', partition_keys)} "
        "ORDER BY extraction_id",  # a window costs more than the few older ones
        {"pipeline": pipeline},
    )
    return {row["partition_key"]: ExtractionEntry(**row) for row in dicts(result)}


def scorings_of(con: DuckDBPyConnection, pipeline: str, partition_keys: list[str]) -> list[ScoringEntry]:
    """Every finished scoring of these partitions, oldest first."""
    result = con.execute(
        f"SELECT * FROM ledger.scorings WHERE pipeline = $pipeline AND {among('partition_key', partition_keys)} "
        "AND status = 'scored' ORDER BY scoring_id",
        {"pipeline": pipeline},
    )
    return [ScoringEntry(**row) for row in dicts(result)]


def failed_attempts(con: DuckDBPyConnection, pipeline: str, partition_keys: list[str]) -> dict[str, str]:
    """Partition → the id of its newest attempt that was blocked or failed."""
    return dict(
        con.execute(
            f"SELECT partition_key, max(scoring_id) FROM ledger.scorings WHERE pipeline = $pipeline "
            f"AND {among('partition_key', partition_keys)} AND role = 'champion' AND status <> 'scored' GROUP BY ALL",
            {"pipeline": pipeline},
        ).fetchall()
    )


def dicts(result: DuckDBPyConnection) -> list[dict[str, Any]]:
    """A result's rows by column name."""
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def inputs_digest(source_digests: str, sql_digest: str, code_digest: str, manifest_digest: str | None) -> str:
    """A digest of all inputs of a scoring except the engine; `source_digests` is canonical JSON."""
    content = "\n".join((source_digests, sql_digest, code_digest, manifest_digest or ""))
    return hashlib.sha256(content.encode()).hexdigest()


def with_share(code_digest: str, share: float) -> str:
    """The declaration's digest in the inputs of a partition that was blocked for too few rows."""
    return f"{code_digest} min_row_share {share:g}"


def partition_fields(partition: Partition) -> dict[str, Any]:
    """The columns by which every ledger row names its partition."""
    return {
        "partition_key": partition.key,
        "partition_start": partition.start,
        "partition_end": partition.end,
    }
