"""Features: the pipeline's SQL run for a range of partitions, checked before anything is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.ranges import contiguous
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.fingerprints import Fingerprints, fingerprints
from pip_dagster.flow.query import FeatureQuery
from pip_dagster.flow.reader import sources_alone
from pip_dagster.flow.stage import Stage
from pip_dagster.flow.validate import Verdicts
from pip_dagster.flow.validate_sources import validate_sources
from pip_dagster.sql.names import literal, quote, quote_all
from pip_dagster.warehouse import faults
from pip_dagster.warehouse.connect import all_memory, declared_memory_limit
from pip_dagster.warehouse.digest import RowSet, row_set_sql
from pip_dagster.warehouse.interrupts import raise_if_interrupted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.spec import PipelineSpec, Source


@dataclass(frozen=True)
class Extract:
    """One partition's features as staged: how many rows, which content, from which sources, judged how."""

    partition: Partition
    rows: int
    digest: str
    sources: Mapping[str, Mapping[str, object]]
    seconds: float
    verdicts: Verdicts = ()
    provisional: bool = False


@dataclass(frozen=True)
class Extraction:
    """The staged features of a range by partition, and what is wrong with the partitions that failed."""

    extracts: dict[str, Extract]
    failed: dict[str, str]
    sources: Fingerprints
    read_at: datetime


def extract(stage: Stage, pipeline: Pipeline, partitions: Sequence[Partition], *, as_known: bool = False) -> Extraction:
    """Run the feature SQL over all `partitions` at once and check each one's rows.

    Every row must lie in one of the partitions, and have a key that is whole and unique in it. A partition that
    breaks this fails alone; so does one whose rows make the SQL itself fail.

    `as_known` hides from each partition what could not be known at its close (`known_by`), by each source's
    `available_at`; the SQL then runs once a partition. The sources' digests are those of all rows: what they were when
    this was made, by which a plan tells whether they changed since.

    Raises:
        DeclarationError: the SQL cannot run at all, or ignores its bounds.
        SourceError: a source cannot be read.
    """
    if as_known and not any(source.available_at for source in pipeline.read_sources.values()):
        raise DeclarationError(
            f"Pipeline {pipeline.spec.name}: no source declares `available_at`, so nothing shows what was known when. "
            "Say for each source that grows when a row could be known, for example `available_at: loaded_at`."
        )
    began, read_at = time.monotonic(), clock.now()
    con, spec = stage.con, pipeline.spec
    failed: dict[str, str] = {}
    judged: dict[str, Verdicts] = {}
    with sources_alone(con, spec, pipeline.project.root) as own:
        query = FeatureQuery.parse(own, spec, pipeline.sql, partitions[0])
        stage.begin(query.columns)
        sources = fingerprints(own, pipeline, partitions)
        if not as_known:
            judged |= validate_sources(own, spec, pipeline.suites, partitions).verdicts
        for adjoining in () if as_known else contiguous(partitions):
            _fill_or_split(own, stage, query, adjoining, failed)
    for partition in partitions if as_known else ():
        known_at = known_by(close_of(spec, partition))
        with sources_alone(con, spec, pipeline.project.root, known_at=known_at) as own:
            judged |= validate_sources(own, spec, pipeline.suites, [partition]).verdicts
            _fill_or_split(own, stage, query, [partition], failed)
    _check_range(stage, spec, query)
    failed |= _check_keys(stage, spec)
    sets = {
        row[0]: RowSet(*row[1:])
        for row in con.execute(
            f"SELECT partition_key, {row_set_sql(query.columns)} FROM {stage.features} GROUP BY partition_key"
        ).fetchall()
    }
    seconds = (time.monotonic() - began) / len(partitions)
    extracts = {}
    for partition in partitions:
        if partition.key not in failed:
            rows = sets.get(partition.key, RowSet())
            digest = rows.digest(query.columns)
            extracts[partition.key] = Extract(
                *(partition, rows.rows, digest, sources.of[partition.key], seconds, judged[partition.key]),
                provisional=pipeline.is_provisional(close_of(spec, partition), read_at),
            )
    return Extraction(extracts, failed, sources, read_at)


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


def _fill_or_split(
    con: DuckDBPyConnection, stage: Stage, query: FeatureQuery, partitions: list[Partition], failed: dict[str, str]
) -> None:
    """Stage the range; where a row makes the SQL fail, halve the range until its partition is alone."""
    import duckdb

    try:
        _fill(con, stage, query, partitions)
    except duckdb.Error as error:
        raise_if_interrupted(error)
        if faults.is_of_spill(error):
            raise
        if len(partitions) == 1:
            failed[partitions[0].key] = f"the feature SQL fails: {error}"
            return
        middle = len(partitions) // 2
        _fill_or_split(con, stage, query, partitions[:middle], failed)
        _fill_or_split(con, stage, query, partitions[middle:], failed)


def _fill(con: DuckDBPyConnection, stage: Stage, query: FeatureQuery, partitions: list[Partition]) -> None:
    """Stage the range; SQL that needs more than a run's memory (not everything can spill) gets all there is."""
    import duckdb

    try:
        query.fill(con, stage, partitions)
    except duckdb.Error as error:  # DuckDB 2 wraps one that comes with a batch
        if declared_memory_limit() or faults.is_of_spill(error) or "Out of Memory Error" not in str(error):
            raise
        for each in (con, stage.con):
            each.execute(f"SET memory_limit = {literal(all_memory())}")
        query.fill(con, stage, partitions)


def _check_range(stage: Stage, spec: PipelineSpec, query: FeatureQuery) -> None:
    column, key = spec.features.partition_column, spec.features.key[0]
    outside = stage.con.execute(
        f"SELECT count(*), any_value({quote(column)}::VARCHAR), any_value({quote(key)}::VARCHAR) "
        f"FROM {stage.features} WHERE partition_key IS NULL"
    ).fetchone()
    if outside and outside[0]:
        used = ", ".join("$" + name for name in sorted(query.parameters))
        raise DeclarationError(
            f"Pipeline {spec.name}, {spec.features.sql}: {outside[0]} rows lie outside the requested partitions, "
            f"such as {key} = {outside[2]} with {column} = {outside[1]}. Bound every row by {used} "
            "(half-open) and give none a NULL there; nothing was stored."
        )


def _check_keys(stage: Stage, spec: PipelineSpec) -> dict[str, str]:
    """Partitions with a key that is NULL, occurs twice or cannot be published exactly, and an example of it."""
    con, keys = stage.con, quote_all(spec.features.key)
    shown = f"concat_ws(', ', {keys})"
    names = ", ".join(spec.features.key)
    any_null = " OR ".join(f"{quote(name)} IS NULL" for name in spec.features.key)
    problems: dict[str, str] = {}
    for key, nulls in con.execute(
        f"SELECT partition_key, count(*) FROM {stage.features} WHERE {any_null} GROUP BY ALL"
    ).fetchall():
        problems[key] = f"{nulls} rows have a NULL in their key ({names}); every row needs a key"
    for key, twice, example in con.execute(
        f"SELECT partition_key, count(*), any_value(k) FROM (SELECT partition_key, {shown} AS k FROM {stage.features} "
        f"GROUP BY partition_key, {keys} HAVING count(*) > 1) GROUP BY partition_key"
    ).fetchall():
        problems.setdefault(
            key,
            f"{twice} keys ({names}) occur more than once, such as {example}; "
            "a join in the feature SQL may multiply rows",
        )
    for name in (name for name in spec.features.key if stage.columns[name] in {"HUGEINT", "UHUGEINT"}):
        for key, example in con.execute(
            f"SELECT partition_key, any_value({quote_all([name])}::VARCHAR) FROM {stage.features} "
            f"WHERE length(ltrim({quote_all([name])}::VARCHAR, '-')) > 38 GROUP BY partition_key"
        ).fetchall():
            problems.setdefault(
                key,
                f"{name} = {example} has more digits than Arrow and Parquet hold (38); cast it to VARCHAR in the SQL",
            )
    return problems
