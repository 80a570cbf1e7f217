"""Reads what a plan needs from the ledger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.partition import Partition
from pip_dagster.ledger.arms import CHAMPION
from pip_dagster.ledger.checks import SPLIT
from pip_dagster.ledger.plan_values import Arms, Attempt, Known
from pip_dagster.ledger.record import dicts

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_OF = "pipeline = $pipeline AND partition_start >= $first AND partition_start <= $last"
_EXTRACTIONS = f"""
  SELECT partition_key, extraction_id, source_digests, sql_digest, declared_parts, feature_digest, made_at
  FROM ledger.extractions WHERE {_OF}
  QUALIFY row_number() OVER (PARTITION BY partition_key ORDER BY extraction_id DESC) = 1
"""
_ATTEMPT = (
    "scoring_id, status, reason, code_digest, manifest_digest, model_version, feature_digest, source_digests, "
    "inputs_digest, made_at, provisional, declared_parts"
)
# An attempt counts with the last one if it failed after the last success, from the same inputs.
_ATTEMPTS = f"""
  WITH attempts AS (SELECT * FROM ledger.scorings WHERE {_OF} AND role = 'champion'),
  last AS (SELECT * FROM attempts
           QUALIFY row_number() OVER (PARTITION BY partition_key ORDER BY scoring_id DESC) = 1),
  ended AS (SELECT partition_key, max(scoring_id) FILTER (status <> 'failed') AS at FROM attempts GROUP BY ALL),
  failures AS (SELECT a.partition_key, count(*) AS failures FROM attempts a
    JOIN last l ON l.partition_key = a.partition_key AND l.status = 'failed'
      AND l.inputs_digest IS NOT DISTINCT FROM a.inputs_digest
    JOIN ended e ON e.partition_key = a.partition_key AND a.scoring_id > coalesce(e.at, '')
    WHERE a.status = 'failed' GROUP BY ALL)
  SELECT partition_key, {_ATTEMPT}, coalesce(failures, 0) AS failures
  FROM last LEFT JOIN failures USING (partition_key)
"""
_LIVE = f"""
  SELECT l.partition_key, l.live_since, l.change_id, l.kind, l.as_known, l.experiment,
    k.entry_id IS NOT NULL AS undecided, a.arms,
    {", ".join("s." + name for name in _ATTEMPT.split(", "))}
  FROM ledger.live l JOIN ledger.scorings s ON s.scoring_id = l.scoring_id
  LEFT JOIN (SELECT DISTINCT entry_id FROM ledger.checks
    WHERE pipeline = $pipeline AND section = '{SPLIT}' AND expectation_id = 'arms' AND status <> 'passed') k
    ON k.entry_id = l.change_id
  LEFT JOIN (SELECT change_id, list(struct_pack(arm, low, high, unit)) AS arms FROM ledger.arms
    WHERE pipeline = $pipeline AND arm <> '{CHAMPION}' GROUP BY ALL) a ON a.change_id = l.change_id
  WHERE l.pipeline = $pipeline AND s.partition_start >= $first AND s.partition_start <= $last
"""


def read_known(con: DuckDBPyConnection, pipeline: str, partitions: Sequence[Partition]) -> dict[str, Known]:
    """Partition key → what the ledger records; nothing for those never attempted. The warehouse is the catalog."""
    starts = [partition.start for partition in partitions]
    values = {"pipeline": pipeline, "first": min(starts), "last": max(starts)}
    found: dict[str, dict[str, Any]] = {}
    for row in dicts(con.execute(_EXTRACTIONS, values)):
        found[row["partition_key"]] = {
            "sources": json.loads(row["source_digests"]),
            "sql_digest": row["sql_digest"],
            "declared_parts": row["declared_parts"],
            "feature_digest": row["feature_digest"],
            "read_at": row["made_at"],
            "entries": (row["extraction_id"],),
        }
    for row in dicts(con.execute(_ATTEMPTS, values)):
        of = found.setdefault(row["partition_key"], {})
        of.update(last=_attempt(row), failures=row["failures"], entries=(*of.get("entries", ()), row["scoring_id"]))
    for row in dicts(con.execute(_LIVE, values)):
        of = found.setdefault(row["partition_key"], {})
        of.update(
            live=_attempt(row),
            live_since=row["live_since"],
            deliberate=row["kind"] in ("pinned", "rollback"),
            as_known=bool(row["as_known"]),
            arms=_arms(row),
            entries=(*of.get("entries", ()), row["change_id"]),
        )
    return {key: Known(**of) for key, of in found.items()}


def _arms(row: dict[str, Any]) -> Arms:
    arms = row["arms"] or []
    ranges = frozenset((arm["arm"], arm["low"], arm["high"]) for arm in arms)
    return Arms(row["experiment"], tuple(json.loads(arms[0]["unit"])) if arms else (), ranges, row["undecided"])


def _attempt(row: dict[str, Any]) -> Attempt:
    return Attempt(
        status=row["status"],
        reason=row["reason"],
        code_digest=row["code_digest"],
        manifest_digest=row["manifest_digest"],
        model_version=row["model_version"],
        feature_digest=row["feature_digest"],
        inputs_digest=row["inputs_digest"],
        # A success's sources are in its extraction; parsing them here too would cost as much as hashing.
        sources=json.loads(row["source_digests"]) if row["source_digests"] and row["status"] != "scored" else None,
        made_at=row["made_at"],
        provisional=bool(row["provisional"]),
        declared_parts=row["declared_parts"],
    )
