"""Whether a partition would go live with far fewer rows than it had, or than the partitions before it have.

An emptied or half-loaded source gives a partition that is sound row by row: only the number of its rows shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.declaration.every import STEPS
from pip_dagster.declaration.partition import Partition
from pip_dagster.sql.names import literal
from pip_dagster.warehouse import advisory

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import Partitions

# Below this many rows chance alone halves a count.
_FEWEST = 20
_WEEK = timedelta(weeks=1)
# How far back a new partition is compared, and how many live partitions that needs: a week of days, hours or minutes.
_RECENT = {every: (timedelta(days=8), _WEEK // step) for every, step in STEPS.items()} | {
    "hour": (timedelta(days=28), 168),
    "day": (timedelta(days=28), 7),
    "week": (timedelta(weeks=12), 4),
    "month": (timedelta(days=366), 4),
}
_ALLOW = (
    "The live rows stay live. If the number of rows is right, run the partition with `--allow-fewer-rows`, or with "
    "the tag pip_dagster/allow_fewer_rows: true; `min_row_share` declares the share"
)
_RECENT_SCORINGS = (
    "ledger.scorings WHERE pipeline = {pipeline} AND partition_start >= {first}::TIMESTAMPTZ "
    "AND partition_start <= {last}::TIMESTAMPTZ"
)
# What is live is computed from the live changes of these alone, not of all. Instants as numbers are faster to read.
_LIVE = """
  WITH recent AS MATERIALIZED (
    SELECT partition_key, scoring_id, epoch_us(partition_start) AS start, rows_scored FROM {recent}
  ), live AS (
    SELECT partition_key, arg_max(scoring_id, change_id) AS scoring_id
    FROM ledger.live_changes SEMI JOIN recent USING (partition_key)
    WHERE pipeline = {pipeline} AND {since} GROUP BY partition_key
  )
  SELECT live.partition_key, start, rows_scored FROM live JOIN recent USING (scoring_id)
"""


LiveRows = Mapping[str, tuple[datetime, int]]  # partition key → start and live rows


def read_live_rows(
    con: DuckDBPyConnection, pipeline: str, declared: Partitions, partitions: list[Partition]
) -> LiveRows:
    """The live rows of partitions and of those that are recent to them. The warehouse is the current catalog."""
    starts = [partition.start for partition in partitions]
    first, last = min(starts) - _RECENT[declared.every][0], max(starts)
    values = {"pipeline": literal(pipeline), "first": literal(first.isoformat()), "last": literal(last.isoformat())}
    recent, since = _RECENT_SCORINGS.format(**values), "true"
    if not advisory.is_shared(con):  # where clocks may differ
        # A change is recorded after its scoring. A literal, so that DuckDB skips what is older.
        (oldest,) = con.execute(f"SELECT min(made_at)::VARCHAR FROM {recent}").fetchone() or (None,)
        if oldest is None:
            return {}
        since = f"made_at >= {literal(oldest)}::TIMESTAMPTZ"
    live = con.execute(_LIVE.format(recent=recent, pipeline=values["pipeline"], since=since)).fetchall()
    return {key: (clock.instant(start), rows or 0) for key, start, rows in live}


def too_few(declared: Partitions, share: float, partition: Partition, rows: int, live: LiveRows) -> str | None:
    """Why the partition must not go live with this number of rows; None where it may.

    A partition that is live is compared with its own live rows: none where it had some, or fewer than `share` of them.
    A new one is compared with the median of the recent partitions and with the smallest of them on the same weekday, of
    partitions of an hour or less in the same hour: a quiet Sunday is no alarm. Small numbers, and a pipeline that is
    new, are not judged.
    """
    if not share:
        return None
    if partition.key in live:
        had = live[partition.key][1]
        if (had and not rows) or (had >= _FEWEST and rows < share * had):
            return f"{rows:,} of its rows would be live, now it has {had:,}; expected at least {share:.0%}. {_ALLOW}"
        return None
    span, needed = _RECENT[declared.every]
    recent = [each for each in live.values() if partition.start - span <= each[0] < partition.start]
    if len(recent) < needed:
        return None
    middle = median(count for _, count in recent)
    if middle < _FEWEST or rows >= share * middle:  # whatever the smallest is
        return None
    mine = _season(declared, partition.start)
    smallest = min([count for at, count in recent if _season(declared, at) == mine] or [count for _, count in recent])
    expected = min(middle, smallest)
    if expected < _FEWEST or rows >= share * expected:
        return None
    return (
        f"{rows:,} of its rows would be live; the {len(recent)} live partitions before it have {middle:,.0f} in the "
        f"median, at least {smallest:,} at the same time of the week; expected at least {share:.0%}. {_ALLOW}"
    )


def _season(declared: Partitions, at: datetime) -> int:
    local = at.astimezone(declared.zone)
    if declared.step:
        return local.hour
    return local.weekday() if declared.every == "day" else 0
