"""Fingerprints of what each partition's sources hold: one query per source, whatever the number of partitions."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.counted_rows import counted
from pip_dagster.flow.origins.opened import Counting
from pip_dagster.flow.sources import columns_of, local_time, rows_of, view_of
from pip_dagster.ledger.observations import Bucket, Buckets
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse.digest import RowSet, row_set_sql
from pip_dagster.warehouse.memory import note_columns

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.spec import PipelineSpec, Source
    from pip_dagster.privacy.suppressed import Incoming

Digests = dict[str, dict[str, object]]  # source → its rows and digest


Windows = dict[str, dict[str, tuple[datetime, datetime]]]  # source → partition key → from, until


@dataclass(frozen=True)
class Fingerprints:
    """Partition key → source → rows and digest of what it may read, and the buckets that these add up.

    `columns`: source → its columns' SQL types by name.
    """

    of: dict[str, Digests]
    buckets: Buckets = field(default_factory=dict)
    windows: Windows = field(default_factory=dict)
    columns: dict[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def ranges(self) -> dict[str, tuple[datetime, datetime]]:
        """Start and end of what was read of each source that has a partition column."""
        return {
            source: (min(start for start, _ in of.values()), max(end for _, end in of.values()))
            for source, of in self.windows.items()
        }

    def rows(self, source: str) -> int:
        """How many rows of a source all these partitions may read."""
        if source in self.buckets:
            return sum(bucket.rows.rows for bucket in self.buckets[source].values())
        return max((int(str(digests[source]["rows"])) for digests in self.of.values()), default=0)

    def newest(self, source: str) -> datetime | None:
        """The bucket of a source's newest row; None where it has no partition column or no row."""
        return max((at for at, bucket in self.buckets.get(source, {}).items() if bucket.rows.rows), default=None)


def fingerprints(
    con: DuckDBPyConnection, pipeline: Pipeline, partitions: Sequence[Partition], people: Incoming | None = None
) -> Fingerprints:
    """What each partition's sources hold: partition key → source → rows and digest; inside `open_sources`.

    Of the sources that decide what the features are (`read_sources`); those that only labels read are left out.
    `source_digests` computes the same in DuckDB, for a plan of many partitions.

    A source with a partition column counts with its rows from `lookback` before the partition to its end; one
    without counts whole. Rows of those whom `people` suppresses do not count.

    Raises:
        DeclarationError: a partition column is not a date or timestamp.
    """
    spec = pipeline.spec
    found = Fingerprints({partition.key: {} for partition in partitions})
    for name, source in pipeline.read_sources.items():
        columns = found.columns[name] = columns_of(con, source)
        note_columns(con, len(columns))
        if source.partition_column is None:
            whole = whole_source(con, spec, name, source, columns, people)
            for sets in found.of.values():
                sets[name] = {"rows": whole.rows, "digest": whole.digest(columns)}
            continue
        clock = Clock.of(spec, source, columns)
        windows = {partition.key: clock.window(partition) for partition in partitions}
        first, last = min(start for start, _ in windows.values()), max(end for _, end in windows.values())
        query = BucketQuery.of(
            clock, columns, first, last, counted(con, spec, name, columns, people, clock.within(first, last))
        )
        with rows_of(spec, name, source):
            rows = con.execute(f"SELECT make_timestamp(t), * EXCLUDE (t) FROM ({query.select})").fetchall()
        buckets = {at: Bucket(RowSet(*sets), newest, query.digest) for at, newest, *sets in rows}
        found.buckets[name], found.windows[name] = buckets, windows
        times = sorted(buckets)
        sums = [RowSet()]  # up to each time: a window is a difference of two, however long its lookback
        for at in times:
            sums.append(sums[-1] + buckets[at].rows)
        for key, (start, end) in windows.items():
            difference = sums[bisect_left(times, end)] - sums[bisect_left(times, start)]
            found.of[key][name] = {"rows": difference.rows, "digest": difference.digest(columns)}
    return found


def whole_source(
    con: DuckDBPyConnection,
    spec: PipelineSpec,
    name: str,
    source: Source,
    columns: Mapping[str, str],
    people: Incoming | None = None,
) -> RowSet:
    """All rows of a source that count."""
    where = counted(con, spec, name, columns, people) or "true"
    with rows_of(spec, name, source):
        row = con.execute(f"SELECT {row_set_sql(columns)} FROM {view_of(source)} WHERE {where}").fetchone()
    assert row
    return RowSet(*row)


@dataclass(frozen=True)
class Clock:
    """How the rows of a source are assigned to windows of time.

    By the wall clock, an hour that the clocks repeat is one, not two: hourly partitions count instants where they can.

    Attributes:
        by_instant: By the instant, in UTC; else by the wall clock of the pipeline's time zone.
        column: SQL of the time that bounds compare with.
        grain: The longest bucket that no window's bound divides.
        sql_type: The partition column's type.
    """

    source: Source
    by_instant: bool
    column: str
    grain: timedelta
    sql_type: str

    @classmethod
    def of(cls, spec: PipelineSpec, source: Source, columns: Mapping[str, str]) -> Clock:
        """The clock of a source with a partition column.

        Raises:
            DeclarationError: the partition column is not a date or timestamp.
        """
        name = source.partition_column or ""
        step = spec.partitions.step
        by_instant = step is not None and columns[name] == "TIMESTAMP WITH TIME ZONE"
        local = quote(name) if by_instant else local_time(columns[name], quote(name), spec.partitions.time_zone)
        if local is None:
            raise DeclarationError(
                f"Pipeline {spec.name}: source {source.table}, partition_column {name} is {columns[name]}; expected "
                "DATE, TIMESTAMP or TIMESTAMP WITH TIME ZONE."
            )
        if source.lookback % timedelta(hours=1):
            grain = timedelta(minutes=1)
        elif step and by_instant:
            quarter = timedelta(minutes=15)  # some zones are this many minutes off UTC
            grain = timedelta(minutes=5) if step % quarter else quarter
        elif step:
            grain = step
        elif source.lookback % timedelta(days=1):
            grain = timedelta(hours=1)
        else:
            grain = timedelta(days=1)
        return cls(source, by_instant, local, grain, columns[name])

    def bounds(self, partition: Partition) -> tuple[datetime, datetime]:
        """From and until when the partition's own rows are, without the lookback."""
        if self.by_instant:
            start, end = (each.astimezone(UTC).replace(tzinfo=None) for each in (partition.start, partition.end))
            return start, end
        start, end = partition.start_local, partition.end_local
        return start, max(end, start + timedelta(hours=1))  # the first of two equal hours ends where it began

    def window(self, partition: Partition) -> tuple[datetime, datetime]:
        """Which rows a partition may read: from, until."""
        start, end = self.bounds(partition)
        return start - self.source.lookback, end

    def at(self, moment: datetime) -> str:
        """A bound in SQL."""
        if self.by_instant:
            return f"{literal(moment.replace(tzinfo=UTC).isoformat(sep=' '))}::TIMESTAMPTZ"
        return f"{literal(moment.isoformat(sep=' '))}::TIMESTAMP"

    def counting(
        self, spec: PipelineSpec, columns: Mapping[str, str], first: datetime, last: datetime
    ) -> Counting | None:
        """What an origin needs to count rows itself; None without a change column."""
        change = next((each for each in columns if each.lower() == (self.source.change_column or "").lower()), None)
        if change is None:
            return None
        zone = "UTC" if self.by_instant else spec.partitions.time_zone
        return Counting(
            self.source.partition_column or "", self.sql_type, zone, self.grain, change, columns[change], first, last
        )

    def within(self, first: datetime, last: datetime) -> str:
        """The condition that a row lies between two bounds.

        A bound of the column itself is added where it is converted: only that reaches a server or an index, and skips
        row groups. It is wider than the exact one.
        """
        exact = f"{self.column} >= {self.at(first)} AND {self.column} < {self.at(last)}"
        name, day = quote(self.source.partition_column or ""), timedelta(days=1)
        if self.sql_type == "DATE":
            start, end = (literal(str(at.date())) for at in (first, last))
            return f"{exact} AND {name} >= {start}::DATE AND {name} <= {end}::DATE"
        if self.sql_type == "TIMESTAMP WITH TIME ZONE" and not self.by_instant:  # no zone is a day from UTC
            start, end = (literal(f"{at.isoformat(sep=' ')}+00:00") for at in (first - day, last + day))
            return f"{exact} AND {name} >= {start}::TIMESTAMPTZ AND {name} < {end}::TIMESTAMPTZ"
        return exact


@dataclass(frozen=True)
class BucketQuery:
    """SQL of the buckets of a source between two bounds.

    Attributes:
        t: The start of a row's bucket, in microseconds since 1970.
        newest: The newest change in a group of rows, as text.
        within: FROM and WHERE.
        sets: The count, sum and xor of a group of rows.
        digest: A digest of the columns: buckets of other columns are not comparable.
        kept: The condition that a row counts; None where all do.
    """

    clock: Clock
    t: str
    newest: str
    within: str
    sets: str
    digest: str
    kept: str | None

    @classmethod
    def of(
        cls, clock: Clock, columns: Mapping[str, str], first: datetime, last: datetime, kept: str | None = None
    ) -> BucketQuery:
        """The query for these columns of the clock's source."""
        source, column = clock.source, clock.column
        micros, length = f"epoch_us({column})", clock.grain // timedelta(microseconds=1)
        return cls(
            clock,
            t=f"{micros} - ({micros} % {length} + {length}) % {length}",  # before 1970 too
            newest=f"max({quote(source.change_column)})::VARCHAR" if source.change_column else "NULL::VARCHAR",
            within=_within(clock, first, last, kept),
            sets=row_set_sql(columns),
            digest=hashlib.sha256(str(list(columns.items())).encode()).hexdigest()[:16],
            kept=kept,
        )

    def between(self, first: datetime, last: datetime) -> BucketQuery:
        """The same between other bounds."""
        return replace(self, within=_within(self.clock, first, last, self.kept))

    @property
    def select(self) -> str:
        """Start, newest change, count, sum and xor of each bucket: t, newest, n, total, x."""
        rows = f"SELECT {self.t}, {self.newest}, {self.sets} {self.within} GROUP BY ALL"
        return f"SELECT * FROM ({rows}) b(t, newest, n, total, x)"


def _within(clock: Clock, first: datetime, last: datetime, kept: str | None) -> str:
    return f"FROM {view_of(clock.source)} WHERE {clock.within(first, last)}" + (f" AND {kept}" if kept else "")
