"""Features: the pipeline's SQL run for a range of partitions, checked before anything is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.ranges import contiguous
from pip_dagster.errors import DeclarationError, MemoryLimitError
from pip_dagster.flow.cost import Cost, Meter
from pip_dagster.flow.fingerprints import Fingerprints, fingerprints
from pip_dagster.flow.keys import check_keys
from pip_dagster.flow.origins import kinds
from pip_dagster.flow.query import FeatureQuery
from pip_dagster.flow.reader import sources_alone
from pip_dagster.flow.sources import columns_of
from pip_dagster.flow.stage import Stage
from pip_dagster.flow.validate import Verdicts
from pip_dagster.flow.validate_sources import validate_sources
from pip_dagster.plural import plural
from pip_dagster.quoted import said
from pip_dagster.sql.names import quote
from pip_dagster.warehouse import faults, pinned
from pip_dagster.warehouse.digest import RowSet, row_set_sql
from pip_dagster.warehouse.interrupts import raise_if_interrupted
from pip_dagster.warehouse.memory import Room, make_room, undivided, with_more

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.spec import PipelineSpec, Source
    from pip_dagster.privacy.suppressed import Incoming


@dataclass(frozen=True)
class Extract:
    """One partition's features as staged: how many rows, which content, from which sources, judged how."""

    partition: Partition
    rows: int
    digest: str
    sources: Mapping[str, Mapping[str, object]]
    cost: Cost
    verdicts: Verdicts = ()
    provisional: bool = False
    row_set: RowSet = RowSet()


@dataclass(frozen=True)
class Extraction:
    """The staged features of a range by partition, and what is wrong with the partitions that failed."""

    extracts: dict[str, Extract]
    failed: dict[str, str]
    sources: Fingerprints
    read_at: datetime


def extract(
    stage: Stage,
    pipeline: Pipeline,
    partitions: Sequence[Partition],
    *,
    people: Incoming | None,
    as_known: bool = False,
    only: str | None = None,
    sources: Fingerprints | None = None,
) -> Extraction:
    """Run the feature SQL over all `partitions` at once and check each one's rows.

    Every row must lie in one of the partitions, and have a key that is whole and unique in it. A partition that
    breaks this fails alone; so does one whose rows make the SQL itself fail.

    `as_known` hides from each partition what could not be known at its close (`known_by`), by each source's
    `available_at`; the SQL then runs once a partition. The sources' digests are those of all rows: what they were when
    this was made, by which a plan tells whether they changed since.

    `people`: what happens to their rows, as `incoming` gives it. `only`: a condition over the columns of the SQL, whose
    rows alone are extracted. `sources`: what the sources hold, where it is known already; they are then neither hashed
    nor judged.

    Raises:
        DeclarationError: the SQL cannot run at all, or ignores its bounds.
        SourceError: a source cannot be read.
    """
    if as_known and not any(source.available_at for source in pipeline.read_sources.values()):
        raise DeclarationError(
            f"Pipeline {pipeline.spec.name}: no source declares `available_at`, so nothing shows what was known when. "
            "Say for each source that grows when a row could be known, for example `available_at: loaded_at`."
        )
    meter, read_at, wall = Meter(), clock.now(), clock.wall()
    con, spec = stage.con, pipeline.spec
    threads = Room.of(con).threads
    failed: dict[str, str] = {}
    judged: dict[str, Verdicts] = {}
    with sources_alone(con, spec, pipeline.project.root) as own:
        query = with_more(own, partial(FeatureQuery.parse, own, spec, pipeline.sql, partitions[0], people))
        if only:
            query = replace(query, sql=f"SELECT * FROM (\n{query.sql}\n) WHERE {only}")
        stage.begin(query.columns)
        columns = _widest(own, pipeline, query)
        _make_room(own, stage, columns, threads)
        hashed = sources or with_more(own, partial(fingerprints, own, pipeline, partitions, people))
        if not (as_known or sources):
            judged |= validate_sources(own, pipeline, partitions).verdicts
        filling = _Filling(own, stage, query, failed)
        for adjoining in () if as_known else contiguous(partitions):
            filling.fill(adjoining)
    for partition in partitions if as_known else ():
        known_at = known_by(close_of(spec, partition))
        with sources_alone(con, spec, pipeline.project.root, known_at=known_at) as own:
            _make_room(own, stage, columns, threads)
            if not sources:
                judged |= validate_sources(own, pipeline, [partition]).verdicts
            _Filling(own, stage, query, failed).fill([partition])
    make_room(con, columns, threads, small=stage.is_wide)
    with_more(con, stage.arrive)
    _check_range(stage, spec, query)
    failed |= with_more(con, partial(check_keys, stage, spec.features.key))
    sets = with_more(con, partial(_row_sets, stage))
    built = [partition for partition in partitions if partition.key not in failed]
    costs = meter.shares({each.key: sets[each.key].rows if each.key in sets else 0 for each in built})
    extracts = {}
    for partition in built:
        key, rows = partition.key, sets.get(partition.key, RowSet())
        extracts[key] = Extract(
            *(partition, rows.rows, rows.digest(query.columns), hashed.of[key], costs[key]),
            verdicts=judged.get(key, ()),
            provisional=pipeline.is_provisional(close_of(spec, partition), wall),
            row_set=rows,
        )
    return Extraction(extracts, failed, hashed, read_at)


def close_of(spec: PipelineSpec, partition: Partition) -> datetime:
    """Up to when a partition's features may know the world.

    Its end; its start if it is built at its start, unless its rows have cut-offs of their own within it.
    """
    return partition.start if spec.partitions.end_offset and not spec.features.cutoff else partition.end


def known_by(close: datetime) -> Callable[[Source], datetime]:
    """Up to when a row of each source may have become known for a partition with this close.

    A source's `complete_after` says that the partition's own rows arrive until then.
    """
    return lambda source: close + (source.complete_after or timedelta(0))


@dataclass(frozen=True)
class _Filling:
    """Staging what the SQL selects from the sources of `con`; partitions whose rows make it fail go to `failed`."""

    con: DuckDBPyConnection
    stage: Stage
    query: FeatureQuery
    failed: dict[str, str]

    def fill(self, partitions: list[Partition]) -> None:
        """Stage the range; where a row makes the SQL fail, halve the range until its partition is alone.

        SQL that needs more than a run's memory gets more, and if there is none, fewer partitions at a time.
        """
        import duckdb

        try:
            work = partial(self.query.fill, self.con, self.stage, partitions)
            with_more(self.con, work, beside=None if self.stage.is_wide else self.stage.con)
        except (duckdb.Error, MemoryLimitError) as error:
            raise_if_interrupted(error)
            if faults.is_of_spill(error) or kinds.is_of_server(error):
                raise
            pinned.again(self.con)
            if len(partitions) == 1:
                self.failed[partitions[0].key] = f"the feature SQL fails: {said(error)}"
                return
            middle = len(partitions) // 2
            self.fill(partitions[:middle])
            self.fill(partitions[middle:])


def _make_room(own: DuckDBPyConnection, stage: Stage, columns: int, threads: int) -> None:
    """Give the database of the sources what its columns need, and half of that to the stage that is filled from it.

    Wide rows arrive there only once that database is closed, so it gets everything.
    """
    if stage.is_wide:
        undivided(own)
    make_room(own, columns, threads)
    if not stage.is_wide:
        make_room(stage.con, columns, threads, share=0.5)


def _widest(con: DuckDBPyConnection, pipeline: Pipeline, query: FeatureQuery) -> int:
    """The columns of the features, or of a source with more, whose rows are hashed whole."""
    sources = pipeline.read_sources.values()
    return max([len(query.columns), *(len(columns_of(con, source)) for source in sources)])


def _row_sets(stage: Stage) -> dict[str, RowSet]:
    rows = stage.con.execute(
        f"SELECT partition_key, {row_set_sql(stage.columns)} FROM {stage.features} GROUP BY partition_key"
    ).fetchall()
    return {row[0]: RowSet(*row[1:]) for row in rows}


def _check_range(stage: Stage, spec: PipelineSpec, query: FeatureQuery) -> None:
    column = spec.features.partition_column
    outside = stage.con.execute(
        f"SELECT count(*), count(*) - count({quote(column)}) FROM {stage.features} WHERE partition_key IS NULL"
    ).fetchone()
    if outside and outside[0]:
        used = ", ".join("$" + name for name in sorted(query.parameters))
        nulls = f", {outside[1]} of them with a NULL in {column}" if outside[1] else f", by their {column}"
        raise DeclarationError(
            f"Pipeline {spec.name}, {spec.features.sql}: {plural(outside[0], 'row')} outside the requested "
            f"partitions{nulls}. Bound every row by {used} (half-open) and give none a NULL there; nothing was stored."
        )
