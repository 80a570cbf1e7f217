"""The content of each bucket of the source tables as runs read it, so that a plan can name the days that changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster.ledger.rows import insert_rows
from pip_dagster.warehouse.digest import RowSet

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class Bucket:
    """A stretch of a source's time: its rows, and the newest value of its declared change column as text.

    `columns` is a digest of the columns that were read: buckets of other columns are not comparable.
    """

    rows: RowSet
    newest: str | None
    columns: str


Buckets = dict[str, dict[datetime, Bucket]]  # source → start of the bucket → its content
Seen = dict[str, dict[datetime, list[tuple[datetime, Bucket]]]]  # the same with every content so far, oldest first


_NOTHING = RowSet()


@dataclass(frozen=True)
class _SourceBucket:
    """One row of `ledger.source_buckets`."""

    pipeline: str
    source: str
    bucket: datetime = field(metadata={"sql_type": "TIMESTAMP"})
    rows: int
    total: str
    xor: str
    newest: str | None
    columns: str
    made_at: datetime


def read_observations(con: DuckDBPyConnection, pipeline: str) -> Seen:
    """Every recorded content of every bucket. The warehouse is the current catalog."""
    seen: Seen = {}
    for source, at, made_at, *bucket in con.execute(
        f"SELECT source, bucket, made_at, {_BUCKET} FROM ledger.source_buckets "
        "WHERE pipeline = $pipeline ORDER BY made_at",
        {"pipeline": pipeline},
    ).fetchall():
        seen.setdefault(source, {}).setdefault(at, []).append((made_at, _bucket(*bucket)))
    return seen


def newest_of(seen: Seen) -> Buckets:
    """The newest recorded content of each bucket."""
    return {source: {at: history[-1][1] for at, history in of.items()} for source, of in seen.items()}


def add_observations(
    con: DuckDBPyConnection,
    pipeline: str,
    buckets: Buckets,
    ranges: Mapping[str, tuple[datetime, datetime]],
    made_at: datetime,
) -> None:
    """Record the buckets that differ from their newest record; `ranges`: source → start and end of what was read.

    The warehouse is the current catalog.
    """
    new: list[_SourceBucket] = []

    def note(source: str, at: datetime, bucket: Bucket) -> None:
        rows, total, xor = bucket.rows.rows, str(bucket.rows.total), str(bucket.rows.xor)
        new.append(_SourceBucket(pipeline, source, at, rows, total, xor, bucket.newest, bucket.columns, made_at))

    for source, (start, end) in ranges.items():
        now = buckets[source]
        last = {
            at: _bucket(*bucket)
            for at, *bucket in con.execute(
                f"SELECT bucket, {_BUCKET} FROM ledger.source_buckets "
                "WHERE pipeline = $pipeline AND source = $source AND bucket >= $start AND bucket < $end "
                "QUALIFY row_number() OVER (PARTITION BY bucket ORDER BY made_at DESC) = 1",
                {"pipeline": pipeline, "source": source, "start": start, "end": end},
            ).fetchall()
        }
        for at, bucket in now.items():
            if last.get(at) != bucket:
                note(source, at, bucket)
        for at, bucket in last.items():
            if at not in now and bucket.rows != _NOTHING:
                note(source, at, Bucket(_NOTHING, None, bucket.columns))
    insert_rows(con, "source_buckets", new)


_BUCKET = "rows, total, xor, newest, columns"


def _bucket(rows: int, total: str, xor: str, newest: str | None, columns: str) -> Bucket:
    return Bucket(RowSet(rows, int(total), int(xor)), newest, columns)
