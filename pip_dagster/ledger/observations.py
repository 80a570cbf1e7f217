"""What runs saw in the source tables, stretch by stretch: so that a plan can say which day changed, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster.warehouse.digest import RowSet

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class Bucket:
    """A stretch of a source's time: its rows, and the newest value of its change column as text, where one is declared.

    `columns` is a digest of the columns that were read: buckets of other columns are not comparable.
    """

    rows: RowSet
    newest: str | None
    columns: str


Buckets = dict[str, dict[datetime, Bucket]]  # source → beginning of the stretch → what is in it
Seen = dict[str, dict[datetime, list[tuple[datetime, Bucket]]]]  # the same with every time it was another, oldest first


_NOTHING = RowSet()


def read_observations(con: DuckDBPyConnection, pipeline: str) -> Seen:
    """Everything that was seen. The warehouse is the current catalog."""
    seen: Seen = {}
    for source, at, made_at, *bucket in con.execute(
        f"SELECT source, bucket, made_at, {_BUCKET} FROM ledger.source_buckets "
        "WHERE pipeline = $pipeline ORDER BY made_at",
        {"pipeline": pipeline},
    ).fetchall():
        seen.setdefault(source, {}).setdefault(at, []).append((made_at, _bucket(*bucket)))
    return seen


def newest_of(seen: Seen) -> Buckets:
    """What was seen last."""
    return {source: {at: history[-1][1] for at, history in of.items()} for source, of in seen.items()}


def add_observations(
    con: DuckDBPyConnection,
    pipeline: str,
    buckets: Buckets,
    ranges: Mapping[str, tuple[datetime, datetime]],
    made_at: datetime,
) -> None:
    """Write down what is not as it was seen last; `ranges` says from when until when each source was looked at.

    The warehouse is the current catalog.
    """
    new: list[tuple[str, datetime, Bucket]] = []
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
        new += [(source, at, bucket) for at, bucket in now.items() if last.get(at) != bucket]
        gone = [(at, bucket) for at, bucket in last.items() if at not in now and bucket.rows != _NOTHING]
        new += [(source, at, Bucket(_NOTHING, None, bucket.columns)) for at, bucket in gone]
    if not new:
        return
    con.execute(
        "INSERT INTO ledger.source_buckets SELECT $pipeline, unnest($sources::VARCHAR[]), "
        "unnest($buckets::TIMESTAMP[]), unnest($rows::BIGINT[]), unnest($totals::VARCHAR[]), unnest($xors::VARCHAR[]), "
        "unnest($newest::VARCHAR[]), unnest($columns::VARCHAR[]), $made_at",
        {
            "pipeline": pipeline,
            "made_at": made_at,
            "sources": [source for source, _, _ in new],
            "buckets": [at for _, at, _ in new],
            "rows": [bucket.rows.rows for _, _, bucket in new],
            "totals": [str(bucket.rows.total) for _, _, bucket in new],
            "xors": [str(bucket.rows.xor) for _, _, bucket in new],
            "newest": [bucket.newest for _, _, bucket in new],
            "columns": [bucket.columns for _, _, bucket in new],
        },
    )


_BUCKET = "rows, total, xor, newest, columns"


def _bucket(rows: int, total: str, xor: str, newest: str | None, columns: str) -> Bucket:
    return Bucket(RowSet(rows, int(total), int(xor)), newest, columns)
