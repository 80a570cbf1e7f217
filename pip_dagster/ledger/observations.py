"""The content of each bucket of the source tables as runs read it, so that a plan can name the days that changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster.ledger.rows import insert_rows
from pip_dagster.sql.names import literal
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
History = list[tuple[datetime, Bucket]]  # every content of a bucket so far with its time, oldest first

# Every recorded content of a pipeline's buckets, while a plan is made.
SEEN = "temp.main.pip_seen"

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


def lay_observations(con: DuckDBPyConnection, pipeline: str | None) -> None:
    """Create the temporary table `SEEN`; empty without a pipeline. The warehouse is the current catalog."""
    columns = (
        "source VARCHAR, bucket TIMESTAMP, made_at TIMESTAMPTZ, rows BIGINT, total VARCHAR, xor VARCHAR, "
        "newest VARCHAR, columns VARCHAR"
    )
    con.execute(f"CREATE OR REPLACE TEMP TABLE pip_seen ({columns})")
    if pipeline is not None:
        con.execute(
            f"INSERT INTO {SEEN} SELECT source, bucket, made_at, {_BUCKET} FROM ledger.source_buckets "
            f"WHERE pipeline = {literal(pipeline)}"
        )


def read_history(con: DuckDBPyConnection, source: str, times: str) -> dict[datetime, History]:
    """The recorded contents of the buckets that begin at `t`, of the relation `times`; after `lay_observations`."""
    found: dict[datetime, History] = {}
    for at, made_at, *bucket in con.execute(
        f"SELECT bucket, made_at, {_BUCKET} FROM {SEEN} SEMI JOIN {times} c ON epoch_us(bucket) = c.t "
        f"WHERE source = {literal(source)} ORDER BY made_at"
    ).fetchall():
        found.setdefault(at, []).append((made_at, _bucket(*bucket)))
    return found


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
