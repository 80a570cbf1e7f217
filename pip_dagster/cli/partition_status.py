"""The newest partitions of a pipeline as published: what is live, what the last attempt was, how it is split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pip_dagster.cli.published import rows_of
from pip_dagster.plural import plural
from pip_dagster.sql.names import among

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# The newest attempt may have failed while an older scoring is live: both are shown, unless that was made live since.
_PARTITIONS = """
  SELECT * EXCLUDE (start) FROM (
    SELECT partition_key,
           CASE WHEN {corrected} THEN 'scored' ELSE arg_max(status, scoring_id) END AS last_attempt,
           CASE WHEN NOT {corrected} THEN arg_max_null(reason, scoring_id) END AS reason,
           count(*) AS attempts,
           max(model_version) FILTER (is_live) AS model_version,
           max(rows_scored) FILTER (is_live) AS rows, max(rows_quarantined) FILTER (is_live) AS quarantined,
           max(mean_score) FILTER (is_live) AS mean_score, max(seconds) FILTER (is_live) AS seconds,
           max({cpu_seconds}) FILTER (is_live) AS cpu_seconds, max({peak_memory}) FILTER (is_live) AS peak_memory,
           max(made_at) FILTER (is_live) AS scored_at,
           coalesce(bool_or(provisional) FILTER (is_live), false) AS provisional,
           max({purged_at}) FILTER (is_live) AS purged_at, max({purged_by}) FILTER (is_live) AS purged_by,
           max(findings) FILTER (is_live) AS findings,
           max(partition_start) AS start
    FROM ledger.partitions WHERE pipeline = $pipeline AND role = 'champion' AND {named} GROUP BY partition_key
    ORDER BY start DESC LIMIT $last
  ) ORDER BY start
"""
_COUNT = """
  SELECT count(DISTINCT partition_key) AS partitions FROM ledger.partitions
  WHERE pipeline = $pipeline AND role = 'champion'
"""
_COLUMNS = {
    "corrected": "coalesce(max(live_change) > max(scoring_id), false)",
    "cpu_seconds": "cpu_seconds",
    "peak_memory": "peak_memory",
    "purged_at": "purged_at",
    "purged_by": "purged_by",
}
# Of files published before these columns were.
_OLDER = {"corrected": "false", "cpu_seconds": "NULL::DOUBLE", "peak_memory": "NULL::BIGINT"}
_OLDER |= {"purged_at": "NULL::TIMESTAMPTZ", "purged_by": "NULL::VARCHAR"}

_NAMED = 10  # of perhaps thousands of features; --json names all
_PUBLISHED = "SELECT view_name AS name FROM duckdb_views() WHERE schema_name = 'ledger'"
_ARMS = """
  SELECT a.partition_key, a.arm, any_value(s.model_version) AS model_version,
         any_value(a.scoring_id) AS scoring_id, sum(a.high - a.low) / 10000 AS share
  FROM ledger.arms a LEFT JOIN ledger.partitions s ON s.scoring_id = a.scoring_id
  WHERE a.pipeline = $pipeline AND {named} GROUP BY a.partition_key, a.arm ORDER BY a.partition_key, min(a.low)
"""
# Those of the live change only; those of earlier changes are history.
_SPLIT_FAULTS = """
  SELECT partition_key, expectation_id, status, observed FROM ledger.checks
  WHERE pipeline = $pipeline AND {named} AND section = 'split' AND status <> 'passed'
    AND (split_part(expectation_id, ' ', 1) IN ('arms', 'arm', 'sample_ratio') -- a canary's figures are in its arm's
         OR status = 'errored')
    AND entry_id IN (SELECT change_id FROM ledger.arms WHERE pipeline = $pipeline)
  ORDER BY partition_key, expectation_id
"""


@dataclass(frozen=True)
class ArmShare:
    """One arm of a split partition: its version, its share of the units and its scoring."""

    model_version: int | None
    share: float
    scoring_id: str


@dataclass(frozen=True)
class SplitState:
    """How a partition is split, arm by arm, and what is wrong with that."""

    arms: dict[str, ArmShare]
    faults: list[str]

    @property
    def text(self) -> str:
        """Each arm with its version and share."""
        return ", ".join(f"{arm} v{of.model_version} {of.share:.2%}" for arm, of in self.arms.items())


@dataclass(frozen=True)
class PartitionStatus:
    """A partition's newest attempt, and its live scoring; the latter's values are None without one.

    `pending`: something newer is stored and not published yet; None: not known. `purged_by`: the purge that removed the
    contents of the live scoring.
    """

    partition_key: str
    last_attempt: str
    reason: str | None
    attempts: int
    model_version: int | None
    rows: int | None
    quarantined: int | None
    mean_score: float | None
    seconds: float | None
    cpu_seconds: float | None
    peak_memory: int | None
    scored_at: datetime | None
    provisional: bool
    findings: dict[str, Any]
    split: SplitState
    pending: bool | None = False
    purged_at: datetime | None = None
    purged_by: str | None = None

    @property
    def state(self) -> str:
        """Whether it is live, how the last attempt ended if not well, and whether something newer is stored."""
        live = ("live, provisional" if self.provisional else "live") if self.model_version else "nothing live"
        if self.last_attempt == "pending":
            live = "nothing published"
        elif self.last_attempt != "scored":
            live += f"; last attempt {self.last_attempt}"
        if self.purged_by:
            live = f"purged, by {self.purged_by}"
        return f"{live}; stored since, not published yet" if self.pending else live

    @property
    def why(self) -> str:
        """Why the last attempt failed, or was blocked."""
        return "" if self.last_attempt in ("scored", "pending") else self.reason or ""

    @property
    def found(self) -> str:
        """The findings of the guard and of the split."""
        return "; ".join([*guard_findings(self.findings), *self.split.faults])

    def as_dict(self) -> dict[str, Any]:
        """For machines; the split's faults are among the findings."""
        plain = asdict(self)
        split = plain.pop("split")
        plain["findings"] |= {"split": split["faults"]} if split["faults"] else {}
        return plain | {"arms": split["arms"]}


def guard_findings(findings: Mapping[str, Any]) -> list[str]:
    """What the guard found, in words."""
    parts = ["empty"] if "empty" in findings else []
    if unseen := findings.get("unseen_category"):
        parts.append("unseen " + ", ".join(f"{name} ({count})" for name, count in unseen["rows"].items()))
    if undecided := findings.get("segment_condition_null"):
        parts.append(f"a segment's condition is NULL in {plural(undecided, 'row')}")
    if missing := findings.get("all_missing"):
        more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        parts.append("only missing values in " + ", ".join(missing[:_NAMED]) + more)
    return parts


def partition_statuses(
    con: DuckDBPyConnection, pipeline: str, last: int, keys: Sequence[str] | None = None
) -> list[PartitionStatus]:
    """The newest partitions of a pipeline, in the order of time; or these partitions, of which no others are read."""
    import duckdb

    named = "TRUE" if keys is None else among("partition_key", keys)
    split = split_states(con, pipeline, keys)
    found, values = [], {"pipeline": pipeline, "last": last}
    try:
        rows = rows_of(con, _PARTITIONS.format(named=named, **_COLUMNS), values)
    except duckdb.BinderException:
        rows = rows_of(con, _PARTITIONS.format(named=named, **_OLDER), values)
    for row in rows:
        findings = json.loads(row.pop("findings") or "{}")
        state = split.get(row["partition_key"], SplitState({}, []))
        found.append(PartitionStatus(**row, findings=findings, split=state))
    return found


def partition_count(con: DuckDBPyConnection, pipeline: str) -> int:
    """How many partitions of a pipeline are published, live or not."""
    return int(rows_of(con, _COUNT, {"pipeline": pipeline})[0]["partitions"])


def split_states(con: DuckDBPyConnection, pipeline: str, keys: Sequence[str] | None = None) -> Mapping[str, SplitState]:
    """Partition → how it is split, for those of all or of these that were ever split."""
    if not {"arms", "checks"} <= {row["name"] for row in rows_of(con, _PUBLISHED)}:
        return {}
    found: dict[str, SplitState] = {}
    columns = ("a.partition_key", "partition_key")
    arms, checks = ("TRUE" if keys is None else among(column, keys) for column in columns)
    for row in rows_of(con, _ARMS.format(named=arms), {"pipeline": pipeline}):
        state = found.setdefault(row["partition_key"], SplitState({}, []))
        if row["share"] is not None:
            state.arms[row["arm"]] = ArmShare(row["model_version"], row["share"], row["scoring_id"])
    for row in rows_of(con, _SPLIT_FAULTS.format(named=checks), {"pipeline": pipeline}):
        observed = json.loads(row["observed"]) if row["status"] == "failed" else "not judged, see `models canary`"
        found[row["partition_key"]].faults.append(f"{row['expectation_id']}: {observed}")
    return found
