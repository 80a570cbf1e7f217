"""The operational figures of pipelines, from the ledger as published, at a cost that hardly grows with history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

from pip_dagster import clock
from pip_dagster.declaration.every import LONGEST
from pip_dagster.declaration.grid import grid_end, grid_start, partitions_between
from pip_dagster.ledger.recent import RecentPartition, columns_there, recent_partitions
from pip_dagster.ledger.record import dicts
from pip_dagster.monitoring.closing import closed_since
from pip_dagster.monitoring.freshness import Newest, lateness
from pip_dagster.sql.names import literal, quote

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec
    from pip_dagster.monitoring.exposition import Samples

_BEFORE = 28
_DRIFT_STATES = ("alarm", "noted", "drifted", "ok", "unjudged")
_STATES = ("ok", "warning", "alarm", "unjudged")

_SUMMARY = """
  SELECT pipeline, count(*) FILTER (is_live) AS live,
         count(*) FILTER (is_live AND provisional) AS provisional,
         sum(rows_scored) FILTER (is_live)::BIGINT AS rows_live,
         sum(rows_quarantined) FILTER (is_live)::BIGINT AS rows_quarantined,
         count(*) FILTER (role = 'champion' AND status = 'scored') AS scored,
         count(*) FILTER (role = 'champion' AND status = 'failed') AS failed,
         count(*) FILTER (role = 'champion' AND status = 'blocked') AS blocked,
         epoch_us(max(made_at)) AS last_attempt
  FROM ledger.partitions GROUP BY pipeline
"""
# As `status` shows it: an attempt before the change that holds is history.
_UNSUCCESSFUL = """
  WITH tried AS (
    SELECT pipeline, partition_key, status, scoring_id, {live_change} AS live_change FROM ledger.partitions
    WHERE role = 'champion'
  )
  SELECT pipeline, status, count(*) AS partitions FROM (
    SELECT pipeline, partition_key, arg_max(status, scoring_id) AS status
    FROM tried SEMI JOIN (FROM tried WHERE status <> 'scored') f USING (pipeline, partition_key)
    GROUP BY pipeline, partition_key HAVING NOT coalesce(max(live_change) > max(scoring_id), false)
  ) WHERE status <> 'scored' GROUP BY pipeline, status
"""
# Stretches between live partitions, and where the first of them begins.
_GAPS = """
  SELECT pipeline, epoch_us(partition_end) AS since, epoch_us(following) AS until FROM (
    SELECT pipeline, partition_end,
           lead(partition_start) OVER (PARTITION BY pipeline ORDER BY partition_start) AS following
    FROM ledger.partitions WHERE is_live
  ) WHERE following > partition_end ORDER BY pipeline, since
"""
_ALARMS = """
  SELECT pipeline, event, severity, count(*) AS alarms FROM (
    FROM ledger.alarms QUALIFY row_number() OVER (PARTITION BY alarm_id ORDER BY sequence DESC) = 1
  ) WHERE state <> 'resolved' GROUP BY ALL
"""
_DRIFT = """
  SELECT state, count(*) FROM (
    SELECT DISTINCT column_kind, name, segment, segment_value, state FROM {drift} WHERE {where}
  ) GROUP BY state
"""


def measure(
    con: DuckDBPyConnection, declared: Mapping[str, PipelineSpec | None], samples: Samples, *, now: datetime
) -> None:
    """Add the figures of these pipelines; of one whose declaration does not load, those of the ledger alone.

    `con` reads `ledger.partitions`, as published or of a lake.
    """
    summaries = {row["pipeline"]: row for row in dicts(con.execute(_SUMMARY))}
    unsuccessful = dicts(con.execute(_UNSUCCESSFUL.format(**columns_there(con))))
    newest = recent_partitions(con, _BEFORE + 1)
    gaps = _by_pipeline(dicts(con.execute(_GAPS)))
    for name, spec in declared.items():
        if name in summaries:
            _add_summary(samples, name, summaries[name])
            for status in ("failed", "blocked"):
                found = (each for each in unsuccessful if (each["pipeline"], each["status"]) == (name, status))
                count = next((each["partitions"] for each in found), 0)
                samples.add("partitions_unsuccessful", count, pipeline=name, status=status)
        else:
            samples.add("partitions_live", 0, pipeline=name)
        if partitions := newest.get(name):
            _add_newest(samples, name, partitions, now)
            _add_drift(con, samples, partitions[0])
        if spec:
            of = partitions[0] if partitions else None
            _add_freshness(samples, spec, of, now)
            if of:
                _add_missing(samples, spec, gaps.get(name, []), of, now)
    _add_alarms(con, samples, declared)


def _by_pipeline(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["pipeline"], []).append(row)
    return found


def _add_summary(samples: Samples, name: str, of: Mapping[str, Any]) -> None:
    samples.add("partitions_live", of["live"], pipeline=name)
    samples.add("partitions_provisional", of["provisional"], pipeline=name)
    samples.add("rows_live", of["rows_live"], pipeline=name)
    samples.add("rows_quarantined_live", of["rows_quarantined"], pipeline=name)
    last = of["last_attempt"]
    samples.add("last_attempt_timestamp_seconds", None if last is None else last / 1e6, pipeline=name)
    for status in ("scored", "failed", "blocked"):
        samples.add("attempts_total", of[status], pipeline=name, status=status)


def _add_newest(samples: Samples, name: str, partitions: Sequence[RecentPartition], now: datetime) -> None:
    of = partitions[0]
    model = {"model": of.model_name, "version": of.model_version, "digest": (of.model_digest or "")[:12]}
    samples.add("model_info", 1, pipeline=name, **model, device=of.device or "")
    samples.add("newest_partition_end_timestamp_seconds", of.partition_end.timestamp(), pipeline=name)
    samples.add("newest_partition_age_seconds", (now - of.partition_end).total_seconds(), pipeline=name)
    figures = {
        "scored_timestamp_seconds": of.made_at.timestamp() if of.made_at else None,
        "rows_scored": of.rows_scored,
        "rows_quarantined": of.rows_quarantined,
        "quarantined_ratio": (of.rows_quarantined or 0) / of.rows if of.rows else None,
        "unseen_category_rows": sum(of.unseen.values()),
        "seconds": of.seconds,
        "cpu_seconds": of.cpu_seconds,
        "rows_per_second": of.rows_scored / of.seconds if of.rows_scored and of.seconds else None,
        "throughput_ratio": throughput_ratio(partitions),
        "peak_memory_bytes": of.peak_memory,
        "lock_wait_seconds": of.lock_seconds,
    }
    for figure, value in figures.items():
        samples.add(f"newest_partition_{figure}", value, pipeline=name)


def throughput_ratio(partitions: Sequence[RecentPartition]) -> float | None:
    """The first one's rows per CPU second, as a share of the median of the others that were computed likewise."""
    of = partitions[0]
    alike = (each for each in partitions[1:] if each.computed_by == of.computed_by)
    before = [rate for each in alike if (rate := each.rows_per_cpu_second)]
    return of.rows_per_cpu_second / median(before) if of.rows_per_cpu_second and before else None


def _add_freshness(samples: Samples, spec: PipelineSpec, of: RecentPartition | None, now: datetime) -> None:
    newest = Newest(of.partition_key, of.scoring_id, of.partition_end) if of else None
    found = lateness(spec, newest, now)
    for state in _STATES:
        samples.add("freshness_state", int(state == found.state), pipeline=spec.name, state=state)
    if found.state != "unjudged":
        overdue = (now - found.fail).total_seconds() if found.fail else 0.0
        samples.add("overdue_seconds", max(0.0, overdue), pipeline=spec.name)


def _add_missing(
    samples: Samples, spec: PipelineSpec, gaps: Sequence[Mapping[str, Any]], of: RecentPartition, now: datetime
) -> None:
    """Of the gaps only the number is computed, of what follows the newest live partition the partitions are listed."""
    declared = spec.partitions
    tail = closed_since(declared, of.partition_end, now)
    first, last = grid_start(declared), grid_end(declared)
    inside = []
    for gap in gaps:
        since, until = max(clock.instant(gap["since"]), first), clock.instant(gap["until"])
        if (count := partitions_between(declared, since, min(until, last or until))) > 0:
            inside.append((since, count))
    samples.add("partitions_missing", len(tail) + sum(count for _, count in inside), pipeline=spec.name)
    if inside:
        since = inside[0][0]
        near = (abs(declared.end_offset) + 2) * LONGEST[declared.every]
        closed = closed_since(declared, since, min(now, since + near + timedelta(hours=1)))
    else:
        closed = tail
    if closed:
        age = (now - closed[0].at).total_seconds()
        samples.add("oldest_missing_partition_age_seconds", age, pipeline=spec.name)


def _add_drift(con: DuckDBPyConnection, samples: Samples, of: RecentPartition) -> None:
    """Where drift is judged. Its rows are behind those of the scoring, which is why older ones are not read."""
    if of.made_at is None or not _there(con, of.pipeline, "drift"):
        return
    since = f"{literal(of.made_at.isoformat())}::TIMESTAMPTZ"
    where = f"partition_key = {literal(of.partition_key)} AND judged_at >= {since}"
    select = _DRIFT.format(drift=f"{quote(of.pipeline)}.drift", where=where)
    if counts := dict(con.execute(select).fetchall()):
        for state in _DRIFT_STATES:
            samples.add("drift_columns", counts.get(state, 0), pipeline=of.pipeline, state=state)


def _add_alarms(con: DuckDBPyConnection, samples: Samples, names: Mapping[str, object]) -> None:
    if not _there(con, "ledger", "alarms"):
        return
    for row in dicts(con.execute(_ALARMS)):
        if row["pipeline"] in names:
            labels = {name: row[name] for name in ("pipeline", "event", "severity")}
            samples.add("alarms_open", row["alarms"], **labels)


def _there(con: DuckDBPyConnection, schema: str, name: str) -> bool:
    """Whether the current catalog has this table or view."""
    select = (
        "SELECT 1 FROM information_schema.tables WHERE table_catalog = current_database() "
        f"AND table_schema = {literal(schema)} AND table_name = {literal(name)}"
    )
    return con.execute(select).fetchone() is not None
