"""Fingerprints of what each partition's sources hold: one query per source, whatever the number of partitions."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.sources import columns_of, local_time, rows_of, view_of
from pip_dagster.ledger.observations import Bucket, Buckets
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse.digest import RowSet, row_set_sql
from pip_dagster.warehouse.memory import note_columns

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.spec import PipelineSpec, Source

Digests = dict[str, dict[str, object]]  # source → its rows and digest


Windows = dict[str, dict[str, tuple[datetime, datetime]]]  # source → partition key → from, until


@dataclass(frozen=True)
class Fingerprints:
    """Partition key → source → rows and digest of what it may read, and the buckets that these add up."""

    of: dict[str, Digests]
    buckets: Buckets = field(default_factory=dict)
    windows: Windows = field(default_factory=dict)

    @property
    def ranges(self) -> dict[str, tuple[datetime, datetime]]:
        """Start and end of what was read of each source that has a partition column."""
        return {
            source: (min(start for start, _ in of.values()), max(end for _, end in of.values()))
            for source, of in self.windows.items()
        }


def fingerprints(
    con: DuckDBPyConnection, pipeline: Pipeline, partitions: Sequence[Partition], seen: Buckets | None = None
) -> Fingerprints:
    """What each partition's sources hold: partition key → source → rows and digest; inside `open_sources`.

    Of the sources that decide what the features are (`read_sources`); those that only labels read are left out.

    A source with a partition column counts with its rows from `lookback` before the partition to its end; one
    without counts whole. If a source has a change column, buckets in `seen` with the same number of rows and the same
    newest change are not read again.

    Raises:
        DeclarationError: a partition column is not a date or timestamp.
    """
    spec = pipeline.spec
    found = Fingerprints({partition.key: {} for partition in partitions})
    for name, source in pipeline.read_sources.items():
        columns = columns_of(con, source)
        note_columns(con, len(columns))
        if source.partition_column is None:
            with rows_of(spec, name, source):
                row = con.execute(f"SELECT {row_set_sql(columns)} FROM {view_of(source)}").fetchone()
            assert row
            whole = RowSet(*row)
            digest = whole.digest(columns)
            for sets in found.of.values():
                sets[name] = {"rows": whole.rows, "digest": digest}
            continue
        windows = {partition.key: _window(spec, source, columns, partition) for partition in partitions}
        with rows_of(spec, name, source):
            buckets = _buckets(con, spec, source, columns, list(windows.values()), (seen or {}).get(name, {}))
        found.buckets[name], found.windows[name] = buckets, windows
        times = sorted(buckets)
        sums = [RowSet()]  # up to each time: a window is a difference of two, however long its lookback
        for at in times:
            sums.append(sums[-1] + buckets[at].rows)
        for key, (start, end) in windows.items():
            rows = sums[bisect_left(times, end)] - sums[bisect_left(times, start)]
            found.of[key][name] = {"rows": rows.rows, "digest": rows.digest(columns)}
    return found


def _buckets(
    con: DuckDBPyConnection,
    spec: PipelineSpec,
    source: Source,
    columns: dict[str, str],
    windows: Sequence[tuple[datetime, datetime]],
    seen: Mapping[datetime, Bucket],
) -> dict[datetime, Bucket]:
    """The content of each bucket, for the range with its lookback."""
    column = quote(source.partition_column or "")
    local = local_time(columns[source.partition_column or ""], column, spec.partitions.time_zone)
    if local is None:
        raise DeclarationError(
            f"Pipeline {spec.name}: source {source.table}, partition_column {source.partition_column} is "
            f"{columns[source.partition_column or '']}; expected DATE, TIMESTAMP or TIMESTAMP WITH TIME ZONE."
        )
    if _by_instant(spec, source, columns):
        local = f"timezone('UTC', {column})"
    bucket = f"time_bucket(INTERVAL '{_grain(spec, source, columns)}', {local})"
    newest = f"max({quote(source.change_column)})::VARCHAR" if source.change_column else "NULL"
    digest = hashlib.sha256(str(list(columns.items())).encode()).hexdigest()[:16]
    within = (
        f"FROM {view_of(source)} WHERE {local} >= {_at(min(start for start, _ in windows))} "
        f"AND {local} < {_at(max(end for _, end in windows))}"
    )
    same: dict[datetime, Bucket] = {}
    if source.change_column and seen:
        for at, count, change in con.execute(
            f"SELECT {bucket} AS bucket, count(*), {newest} {within} GROUP BY ALL"
        ).fetchall():
            known = seen.get(at)
            if known and (known.rows.rows, known.newest, known.columns) == (count, change, digest):
                same[at] = known
        if same:
            listed = ", ".join(_at(at) for at in same)
            within += f" AND {bucket} NOT IN ({listed})"
    rows = con.execute(f"SELECT {bucket} AS bucket, {newest}, {row_set_sql(columns)} {within} GROUP BY ALL").fetchall()
    return same | {row[0]: Bucket(RowSet(*row[2:]), row[1], digest) for row in rows}


def _at(moment: datetime) -> str:
    return f"{literal(moment.isoformat(sep=' '))}::TIMESTAMP"


def _by_instant(spec: PipelineSpec, source: Source, columns: dict[str, str]) -> bool:
    """Whether rows are assigned by the instant. By the wall clock, an hour that the clocks repeat is one, not two."""
    return spec.partitions.every == "hour" and columns[source.partition_column or ""] == "TIMESTAMP WITH TIME ZONE"


def _window(
    spec: PipelineSpec, source: Source, columns: dict[str, str], partition: Partition
) -> tuple[datetime, datetime]:
    """Which rows of a source a partition may read: from, until; in UTC by the instant, else by the wall clock."""
    if _by_instant(spec, source, columns):
        start, end = (each.astimezone(UTC).replace(tzinfo=None) for each in (partition.start, partition.end))
    else:
        start, end = partition.start_local, partition.end_local
        end = max(end, start + timedelta(hours=1))  # the first of two equal hours ends where it began
    return start - source.lookback, end


def _grain(spec: PipelineSpec, source: Source, columns: dict[str, str]) -> str:
    """The longest bucket that no window's bound divides."""
    if source.lookback % timedelta(hours=1):
        return "1 minute"
    if _by_instant(spec, source, columns):
        return "15 minutes"  # some zones are this many minutes off UTC
    return "1 hour" if spec.partitions.every == "hour" or source.lookback % timedelta(days=1) else "1 day"
