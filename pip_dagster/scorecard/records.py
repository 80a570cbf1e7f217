"""What is known of a pipeline: a few queries of the ledger, each run once, whatever number of partitions there is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pip_dagster.ledger.record import dicts
from pip_dagster.ledger.verify import verify
from pip_dagster.reporting.provenance import live_version
from pip_dagster.reporting.source import OpenLedger
from pip_dagster.warehouse.stamp import stamps_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion

Row = dict[str, Any]

# So many labelled partitions make a window.
WINDOW = 28
# What `monitoring` needs to compare a week with the partitions before it.
LEAST_COMPARED = 21

_NEWEST = """
  SELECT scoring_id, partition_key, partition_end, model_version, feature_revision, code_digest, engine, source_digests,
         made_at
  FROM ledger.partitions WHERE pipeline = $pipeline AND is_live AND role = 'champion'
  ORDER BY partition_start DESC, scoring_id DESC LIMIT 1
"""
_EXTRACTION = """
  SELECT extraction_id, sql_digest, made_at FROM ledger.extractions
  WHERE pipeline = $pipeline AND partition_key = $key AND revision = $revision ORDER BY extraction_id DESC LIMIT 1
"""
# Of the newest live scoring; a source's are recorded beside the extraction.
_CHECKS = """
  SELECT section, expectation_id, arg_max(status, made_at) AS status, arg_max(severity, made_at) AS severity,
         max(made_at) AS made_at
  FROM ledger.checks
  WHERE pipeline = $pipeline AND partition_key = $key AND section <> 'split'
    AND (entry_id = $scoring OR section LIKE 'sources.%')
  GROUP BY ALL
"""
# Labelled partitions whose figures count.
_COUNTING = """
  FROM ledger.live_evaluations e WHERE e.pipeline = $pipeline AND e.arm = 'champion' AND e.labelled > 0
    AND e.mature_at <= $now AND NOT e.unlike_rest
"""
_EVALUATED = f"""
  SELECT count(*) AS partitions, count(*) FILTER (e.model_version = $version) AS of_version,
         arg_max(e.evaluation_id, e.partition_start) AS newest_id, max(e.evaluated_at) AS evaluated_at,
         arg_max(e.partition_key, e.partition_start) AS newest
  {_COUNTING}
"""
_WINDOW = f"""
  SELECT e.evaluation_id, e.partition_key, e.evaluated_at, f.sums
  FROM (SELECT e.* {_COUNTING} AND e.model_version = $version ORDER BY e.partition_start DESC LIMIT {WINDOW}) e
  JOIN ledger.performance f ON f.evaluation_id = e.evaluation_id
  WHERE f.segment IS NULL AND f.sums <> '' ORDER BY e.partition_start
"""
_TREND = f"""
  SELECT regr_slope(f.figures[list_position(f.metrics, $metric)], epoch(e.partition_start) / 86400) AS slope
  FROM (SELECT e.* {_COUNTING} AND e.model_version = $version) e
  JOIN ledger.performance f ON f.evaluation_id = e.evaluation_id
  WHERE f.segment IS NULL AND list_contains(f.metrics, $metric)
"""
_SEGMENTS = f"""
  SELECT f.segment, count(DISTINCT f.segment_value) AS of_values, sum(f.labelled)::BIGINT AS labelled
  FROM (SELECT e.* {_COUNTING} AND e.model_version = $version ORDER BY e.partition_start DESC LIMIT {WINDOW}) e
  JOIN ledger.performance f ON f.evaluation_id = e.evaluation_id
  WHERE f.segment IS NOT NULL GROUP BY ALL ORDER BY ALL
"""
_MARKS = """
  SELECT event, arg_max(partition_key, made_at) AS partition_key, max(made_at) AS made_at FROM ledger.alarm_marks
  WHERE pipeline = $pipeline GROUP BY ALL
"""
_OPEN = """
  SELECT alarm_id, event, subject, state, severity FROM ledger.alarm_states
  WHERE pipeline = $pipeline AND state IN ('warning', 'alarm', 'acknowledged') ORDER BY alarm_id
"""
_ENTRIES = """
  SELECT seq, made_at, actor, action, pipeline, subject, details FROM ledger.audit
  WHERE action IN ('statement', 'rollback', 'exercised', 'promotion') AND (pipeline = $pipeline OR pipeline IS NULL)
  ORDER BY seq DESC
"""


@dataclass(frozen=True)
class Records:
    """A pipeline with its ledger, which is the current catalog, as of `now`."""

    con: DuckDBPyConnection
    pipeline: Pipeline
    now: datetime

    @cached_property
    def chain_fault(self) -> str | None:
        """Why the audit's chain, or what it says of the ledger, is not as it was recorded."""
        import duckdb

        try:
            fault = verify(self.con, stamps=stamps_of(self.pipeline.project))
        except (duckdb.Error, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            return f"rows of the ledger are not as pip_dagster writes them ({type(error).__name__})"
        return str(fault) if fault else None

    def rows(self, sql: str, **values: Any) -> list[Row]:
        """Rows of the ledger; `$pipeline` is this one."""
        wanted = {name: each for name, each in (values | {"pipeline": self.name}).items() if f"${name}" in sql}
        return dicts(self.con.execute(sql, wanted))

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.pipeline.spec.name

    @cached_property
    def _version(self) -> tuple[ModelVersion | None, str]:
        return live_version(OpenLedger(self.con, frozenset()), self.pipeline)

    @property
    def version(self) -> ModelVersion | None:
        """The version that is live, or else the one that the alias names."""
        return self._version[0]

    @property
    def why_no_version(self) -> str:
        """Why there is none."""
        return self._version[1].rstrip(".")

    @cached_property
    def newest(self) -> Row | None:
        """The newest live partition's scoring."""
        return next(iter(self.rows(_NEWEST)), None)

    @cached_property
    def extraction(self) -> Row | None:
        """The extraction of its features."""
        of = self.newest
        found = self.rows(_EXTRACTION, key=of["partition_key"], revision=of["feature_revision"]) if of else []
        return next(iter(found), None)

    @cached_property
    def checks(self) -> list[Row]:
        """What each expectation found in it."""
        of = self.newest
        return self.rows(_CHECKS, key=of["partition_key"], scoring=of["scoring_id"]) if of else []

    @cached_property
    def evaluated(self) -> Row:
        """How many labelled partitions count, and the newest of them."""
        return self.rows(_EVALUATED, now=self.now, version=self._number)[0]

    @cached_property
    def window(self) -> list[Row]:
        """The newest of them that the version scored, oldest first."""
        return self.rows(_WINDOW, now=self.now, version=self._number)

    @cached_property
    def segments(self) -> list[Row]:
        """The segments in them."""
        return self.rows(_SEGMENTS, now=self.now, version=self._number)

    def trend(self, metric: str) -> float | None:
        """By how much a metric of the version has changed a day."""
        found = self.rows(_TREND, now=self.now, version=self._number, metric=metric)
        return found[0]["slope"] if found else None

    @property
    def _number(self) -> int:
        return self.version.version if self.version else -1

    @cached_property
    def marks(self) -> dict[str, Row]:
        """Event → how far its rules have judged, and when."""
        return {row["event"]: row for row in self.rows(_MARKS)}

    @cached_property
    def open_alarms(self) -> list[Row]:
        """Alarms and warnings that are not resolved."""
        return self.rows(_OPEN)

    @cached_property
    def entries(self) -> list[Row]:
        """Entries of the audit that may be evidence, newest first."""
        found = self.rows(_ENTRIES)
        return [row | {name: json.loads(row[name]) for name in ("subject", "details")} for row in found]

    @cached_property
    def ledger(self) -> str:
        """The hash of the audit's first entry, by which ledgers are distinguished."""
        found = self.con.execute("SELECT hash FROM ledger.audit WHERE seq = 1").fetchone()
        return found[0] if found else ""
