"""What each partition's sources hold, as `fingerprints` computes it, for tens of thousands of partitions.

DuckDB computes and keeps it, in temporary tables. Python reads what differs from the ledger, which is little.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from pip_dagster.declaration.partition import Partition
from pip_dagster.flow.counted_rows import counted
from pip_dagster.flow.fingerprints import BucketQuery, Clock, whole_source
from pip_dagster.flow.sources import OpenSources, columns_of, rows_of
from pip_dagster.ledger.observations import SEEN, Bucket, History, read_history
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.digest import RowSet, digest_sql
from pip_dagster.warehouse.memory import note_columns

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.privacy.suppressed import Incoming

_GRID, _SAME, _CHANGED = "temp.main.pip_grid", "temp.main.pip_same", "temp.main.pip_changed"
_LIGHT = "temp.main.pip_light"
_MICRO, _EPOCH = timedelta(microseconds=1), datetime(1970, 1, 1)
_MOST_READS = 16  # of a source whose changed buckets do not adjoin


@dataclass(frozen=True)
class WindowedSource:
    """A source with a partition column. `buckets`: the temporary table of its content."""

    con: DuckDBPyConnection
    name: str
    clock: Clock
    buckets: str
    digest: str

    @property
    def rows(self) -> int:
        """How many rows it has for all partitions together."""
        row = self.con.execute(f"SELECT coalesce(sum(n), 0) FROM {self.buckets}").fetchone()
        return int(row[0]) if row else 0

    @cached_property
    def _changed(self) -> dict[datetime, tuple[Bucket | None, History]]:
        """The buckets that changed since a run read them, or that no run has read: now, and as runs saw them."""
        now = f"(SELECT t, n, total, x, newest, {literal(self.digest)} AS columns FROM {self.buckets})"
        seen = f"(SELECT epoch_us(bucket) AS t, * FROM {SEEN} WHERE source = {literal(self.name)})"
        known = (
            "SELECT t, count(*) AS times, any_value(rows) AS n, any_value(total) AS total, any_value(xor) AS x, "
            f"any_value(newest) AS newest, any_value(columns) AS columns FROM {seen} GROUP BY t"
        )
        same = " AND ".join(f"k.{column} IS NOT DISTINCT FROM b.{column}" for column in ("n", "newest", "columns"))
        same += " AND k.total = b.total::VARCHAR AND k.x = b.x::VARCHAR"
        self.con.execute(
            f"CREATE OR REPLACE TEMP TABLE pip_changed AS SELECT t, b.* EXCLUDE (t) FROM {now} b "
            f"FULL JOIN ({known}) k USING (t) WHERE NOT coalesce(k.times = 1 AND {same}, false)"
        )
        rows = self.con.execute(f"SELECT make_timestamp(t), * EXCLUDE (t) FROM {_CHANGED} ORDER BY t").fetchall()
        history = read_history(self.con, self.name, _CHANGED)
        return {
            at: (None if count is None else Bucket(RowSet(count, total, xor), newest, columns), history.get(at, []))
            for at, count, total, xor, newest, columns in rows
        }

    def changed(self, partition: Partition, since: datetime) -> list[datetime]:
        """The buckets of a partition's window that are not as they were at an instant."""
        start, end = self.clock.window(partition)
        times = [*self._changed]
        found = []
        for at in times[bisect_left(times, start) : bisect_left(times, end)]:
            now, history = self._changed[at]
            before = [bucket for when, bucket in history if when <= since]
            if (before[-1] if before and before[-1].rows.rows else None) != now:
                found.append(at)
        return found


def lay_source_digests(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    partitions: Sequence[Partition],
    opened: OpenSources | None = None,
    people: Incoming | None = None,
) -> dict[str, WindowedSource]:
    """Create the temporary table `ledger.known.SOURCES`: each partition's key, start and sources as JSON.

    Inside `open_sources`, after `lay_observations`. Returns the sources that have a partition column. If one has a
    change column, buckets whose newest observation has the same number of rows and the same newest change are not read
    again. `opened`: what `open_sources` gave, by which servers count rows themselves. Rows of those whom `people`
    suppresses do not count.

    Raises:
        DeclarationError: a partition column is not a date or timestamp.
    """
    _lay_grid(con, partitions)
    found: dict[str, WindowedSource] = {}
    texts, tables = list[str](), list[str]()
    for number, (name, source) in enumerate(sorted(pipeline.read_sources.items())):
        columns = columns_of(con, source)
        note_columns(con, len(columns))
        if source.partition_column is None:
            whole = whole_source(con, pipeline.spec, name, source, columns, people)
            texts.append(_text(name, literal(whole.digest(columns)), str(whole.rows)))
            continue
        clock = Clock.of(pipeline.spec, source, columns)
        first, last = _bounds(con, clock)
        kept = counted(con, pipeline.spec, name, columns, people, clock.within(first, last))
        query = BucketQuery.of(clock, columns, first, last, kept)
        counting = clock.counting(pipeline.spec, columns, first, last) if opened and not kept else None
        light = opened.counts(name, counting) if opened else None
        found[name] = windowed = WindowedSource(con, name, clock, f"temp.main.pip_buckets_{number}", query.digest)
        with rows_of(pipeline.spec, name, source):
            _lay_buckets(con, windowed, query, light)
        _lay_texts(con, windowed, columns, number)
        tables.append(f"pip_texts_{number}")
        texts.append(f"pip_texts_{number}.text")
    listed = ", ',', ".join(texts) or "''"
    joins = " ".join(f"JOIN temp.main.{table} USING (place)" for table in tables)
    con.execute(
        "CREATE OR REPLACE TEMP TABLE pip_sources AS SELECT g.partition_key, g.start_at, "
        f"concat('{{', {listed}, '}}') AS sources FROM {_GRID} g {joins}"
    )
    return found


def _columns(clock: Clock) -> tuple[str, str]:
    """The columns of the grid with the bounds that `Clock.bounds` computes."""
    return ("start_at", "end_at") if clock.by_instant else ("start_local", "end_local")


def _bounds(con: DuckDBPyConnection, clock: Clock) -> tuple[datetime, datetime]:
    """From and until when the windows of all partitions reach."""
    start, end = _columns(clock)
    row = con.execute(f"SELECT make_timestamp(min({start})), make_timestamp(max({end})) FROM {_GRID}").fetchone()
    assert row
    return row[0] - clock.source.lookback, row[1]


def _text(name: str, digest: str, rows: str) -> str:
    """SQL of a source's entry in the JSON, of two expressions."""
    begin, middle = json.dumps(name, ensure_ascii=False) + ':{"digest":"', '","rows":'
    return f"{literal(begin)}, {digest}, {literal(middle)}, {rows}, '}}'"


def _lay_texts(con: DuckDBPyConnection, windowed: WindowedSource, columns: Mapping[str, str], number: int) -> None:
    """Create the table of what each partition's window of a source holds, as its entry in the JSON.

    A window is a difference of two sums up to a time, however long its lookback.
    """
    start, end = _columns(windowed.clock)
    lookback = windowed.clock.source.lookback // _MICRO
    sums = (
        f"SELECT t, sum(n) OVER w AS n, sum(total) OVER w AS total, bit_xor(x) OVER w AS x FROM {windowed.buckets} "
        "WINDOW w AS (ORDER BY t)"
    )
    windows = (
        "SELECT g.place, coalesce(until.n, 0) - coalesce(before.n, 0) AS n, "
        "coalesce(until.total, 0) - coalesce(before.total, 0) AS total, "
        "xor(coalesce(until.x, 0), coalesce(before.x, 0)) AS x "
        f"FROM {_GRID} g ASOF LEFT JOIN sums before ON g.{start} - {lookback} > before.t "
        f"ASOF LEFT JOIN sums until ON g.{end} > until.t"
    )
    text = f"concat({_text(windowed.name, digest_sql(columns, 'n', 'total', 'x'), 'n')})"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE pip_texts_{number} AS WITH sums AS MATERIALIZED ({sums}) "
        f"SELECT place, {text} AS text FROM ({windows})"
    )


def _lay_grid(con: DuckDBPyConnection, partitions: Sequence[Partition]) -> None:
    """The partitions with their bounds in microseconds since 1970, by the instant and by the wall clock.

    Long texts are parsed much faster than long lists, and to bind parameters, DuckDB imports pandas.
    """

    def listed(values: Sequence[int]) -> str:
        if len(set(values[::97])) == 1 and len(set(values)) == 1:
            return f"{values[0]}::BIGINT"
        return f"unnest(string_split({literal(' '.join(map(str, values)))}, ' ')::BIGINT[])"

    offset = lru_cache(lambda zone: int(zone.utcoffset(None).total_seconds()))  # a few, of tens of thousands
    keys = literal(" ".join(partition.key for partition in partitions))
    seconds = (
        f"SELECT unnest(range({len(partitions)})) AS place, unnest(string_split({keys}, ' ')) AS partition_key, "
        f"{listed([int(each.start.timestamp()) for each in partitions])} AS start_at, "
        f"{listed([int(each.end.timestamp()) for each in partitions])} AS end_at, "
        f"{listed([offset(each.start.tzinfo) for each in partitions])} AS start_offset, "
        f"{listed([offset(each.end.tzinfo) for each in partitions])} AS end_offset"
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE pip_grid AS SELECT place, partition_key, start_at * 1000000 AS start_at, "
        "end_at * 1000000 AS end_at, (start_at + start_offset) * 1000000 AS start_local, "
        f"greatest(end_at + end_offset, start_at + start_offset + 3600) * 1000000 AS end_local FROM ({seconds})"
    )


def _lay_buckets(con: DuckDBPyConnection, windowed: WindowedSource, query: BucketQuery, light: str | None) -> None:
    """Create the table of a source's buckets; those that a change column vouches for are as they were seen.

    `light`: start, newest change and count of each bucket, as a relation of SQL, where the origin computes them.
    """
    table = windowed.buckets.rpartition(".")[2]
    if not windowed.clock.source.change_column:
        con.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {query.select}")
        return
    newest = (
        f"SELECT epoch_us(bucket) AS t, newest, rows AS n, total::HUGEINT AS total, xor::UBIGINT AS x FROM {SEEN} "
        f"WHERE source = {literal(windowed.name)} "
        "QUALIFY row_number() OVER (PARTITION BY bucket ORDER BY made_at DESC) = 1 "
        f"AND columns = {literal(windowed.digest)}"
    )
    counts = light or f"(SELECT {query.t}, {query.newest}, count(*) {query.within} GROUP BY ALL) l(t, newest, n)"
    con.execute(f"CREATE OR REPLACE TEMP TABLE pip_light AS SELECT * FROM {counts}")
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE pip_same AS SELECT k.* FROM {_LIGHT} l JOIN ({newest}) k "
        "ON k.t = l.t AND k.n = l.n AND k.newest IS NOT DISTINCT FROM l.newest"
    )
    others = con.execute(f"SELECT t FROM {_LIGHT} WHERE t NOT IN (SELECT t FROM {_SAME}) ORDER BY t").fetchall()
    con.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS FROM {_SAME}")
    for first, last in _runs([at for (at,) in others], windowed.clock.grain // _MICRO):
        part = query.between(_EPOCH + first * _MICRO, _EPOCH + last * _MICRO)
        rows = f"SELECT {part.t}, {part.newest}, {part.sets} {part.within}"
        con.execute(
            f"INSERT INTO {windowed.buckets} BY NAME SELECT * FROM ("
            f"{rows} AND {part.t} NOT IN (SELECT t FROM {_SAME}) GROUP BY ALL) b(t, newest, n, total, x)"
        )


def _runs(starts: Sequence[int], length: int) -> Iterator[tuple[int, int]]:
    """The ranges that hold these buckets, from and until: as few reads as the longest gaps between them leave."""
    gaps = sorted(range(1, len(starts)), key=lambda place: starts[place] - starts[place - 1], reverse=True)
    cuts = sorted(place for place in gaps[: _MOST_READS - 1] if starts[place] - starts[place - 1] > length)
    for begin, end in zip([0, *cuts], [*cuts, len(starts)], strict=True):
        if begin < end:
            yield starts[begin], starts[end - 1] + length
