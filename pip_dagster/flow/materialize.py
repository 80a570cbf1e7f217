"""A range of partitions from sources to published predictions, each committed whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pip_dagster.declaration.partition import Partition
from pip_dagster.flow.engine import available_threads
from pip_dagster.flow.entries import failed_extraction
from pip_dagster.flow.extract import Extract, extract
from pip_dagster.flow.fingerprints import Fingerprints
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.predict import Made, check_fit, judge_features, predict
from pip_dagster.flow.result import PartitionResult
from pip_dagster.flow.shadow import shadow
from pip_dagster.flow.split import split
from pip_dagster.flow.staged import together
from pip_dagster.flow.store_features import load_features, store_features, stored_columns
from pip_dagster.flow.store_scores import store_failure
from pip_dagster.ledger import record
from pip_dagster.ledger.observations import add_observations
from pip_dagster.ledger.record import ExtractionEntry, RunInfo
from pip_dagster.loaded import loading
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.faults import in_pipeline
from pip_dagster.warehouse.transaction import transaction
from pip_dagster.warehouse.windows import in_windows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

LOG = logging.getLogger("pip_dagster")

# Rows scored before the first of them are committed: what a kill may cost, against the cost of a call per partition.
CHUNK_ROWS = 200_000
# What DuckDB may have for each thread. Staged rows fill whatever it may have, and spilling beyond it costs little; with
# this a million rows nearly fill it on two threads. Feature SQL that needs more gets it (extract).
MEGABYTES_A_THREAD = 96


def materialize(
    pipeline: Pipeline,
    partitions: Sequence[Partition],
    run: RunInfo,
    *,
    features: bool = True,
    predictions: bool = True,
    version: int | None = None,
    as_known: bool = False,
    progress: Callable[[str], None] = LOG.info,
) -> Iterator[PartitionResult]:
    """Make the features, the predictions, or both, of each partition; a result for each soon after it is stored.

    A partition whose rows are bad fails alone and its stored past stays as it was. What is already there with the
    same content, model, declaration and libraries is not made again.

    `version` scores with that version of the model instead of the alias's. `as_known` makes each partition's features
    from the rows that could be known at its own close.

    Raises:
        DeclarationError: nothing can be made: the SQL cannot run, a model is missing or does not fit.
        SourceError: a source cannot be read.
        WarehouseError: the warehouse cannot be opened.
        RegistryError: the model's bytes are not those that were registered, or are gone.
        SpillError: what outgrows memory cannot be written.

    """
    keys = [partition.key for partition in partitions]
    with in_pipeline(pipeline.spec.name, keys):
        yield from _materialize(pipeline, partitions, run, features, predictions, version, as_known, progress)


def _materialize(
    pipeline: Pipeline,
    partitions: Sequence[Partition],
    run: RunInfo,
    features: bool,
    predictions: bool,
    version: int | None,
    as_known: bool,
    progress: Callable[[str], None],
) -> Iterator[PartitionResult]:
    with loading("tables"):  # DuckDB would, for the first parameter of a query and the first batch that it reads
        import pandas  # noqa: F401
        import pyarrow.dataset  # noqa: F401

    threads = available_threads()
    model = ScoringModel.resolve(pipeline, threads, version=version) if predictions else None
    with workspace(threads=threads, memory_limit=f"{max(2, threads) * MEGABYTES_A_THREAD}MB") as con:
        if features:
            batches = [_extract(con, pipeline, partitions, run, model, progress, as_known)]
        else:
            batches = _stored(con, pipeline, partitions)
        for batch in batches:
            yield from (PartitionResult(partition, error=error) for partition, error in batch.failed)
            if model is None:
                yield from judge_features(con, pipeline, batch.columns, batch.made)
                continue
            for chunk in _chunks(batch.made):
                progress(f"{pipeline.spec.name}: scoring {chunk[0][0].key} to {chunk[-1][0].key}")
                results = predict(con, pipeline, model, batch.columns, chunk, batch.stage, run)
                shadowed = shadow(con, pipeline, model, batch.columns, results, batch.stage, run, progress)
                yield from split(con, pipeline, model, shadowed, run, progress)


@dataclass(frozen=True)
class _Batch:
    """Partitions whose features have the same columns and lie in the staging table, or are brought there by `stage`."""

    columns: dict[str, str]
    made: list[Made]
    failed: list[tuple[Partition, str]]
    stage: Callable[[list[ExtractionEntry]], object] | None = None


def _extract(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    partitions: Sequence[Partition],
    run: RunInfo,
    model: ScoringModel | None,
    progress: Callable[[str], None],
    as_known: bool,
) -> _Batch:
    spec = pipeline.spec
    progress(f"{spec.name}: extracting the features of {len(partitions)} partitions")
    extraction = extract(con, pipeline, partitions, as_known=as_known)
    if model:  # before a revision is kept, so that SQL which lost a column stores nothing
        check_fit(con, pipeline, model, extraction.columns)
    made = [partition for partition in partitions if partition.key in extraction.extracts]
    failed = [(p, extraction.failed[p.key]) for p in partitions if p.key in extraction.failed]

    def keep(extracts: list[Extract]) -> list[ExtractionEntry]:
        return store_features(con, pipeline, extraction.columns, extracts, run)

    def fail(partition: Partition, why: str) -> list[ExtractionEntry]:
        sources = extraction.sources.of[partition.key]
        store_failure(con, failed_extraction(pipeline, model, partition, run, why, sources))
        return []

    def observe(seen: Fingerprints) -> list[ExtractionEntry]:
        with transaction(con):
            add_observations(con, spec.name, seen.buckets, seen.ranges, extraction.read_at)
        return []

    # All in the same windows: for a single date, opening the warehouse costs more than what is stored.
    groups = together([extraction.extracts[partition.key] for partition in made], lambda each: each.rows)
    work: list[Callable[[], list[ExtractionEntry]]] = [partial(keep, group) for group in groups]
    work += [partial(fail, *each) for each in failed]
    work.append(partial(observe, extraction.sources))
    shown = bool(failed) or model is None  # else the predictions that come next show what there is
    stored = in_windows(
        con, pipeline.project, work, lambda each: each(), purpose=f"{spec.name}: storing features", publish=shown
    )
    entries = [entry for group in stored for entry in group]
    return _Batch(extraction.columns, list(zip(made, entries, strict=True)), failed)


def _stored(con: DuckDBPyConnection, pipeline: Pipeline, partitions: Sequence[Partition]) -> list[_Batch]:
    """The newest stored features of the partitions, a batch for each set of columns they have had."""
    name, path = pipeline.spec.name, pipeline.project.warehouse
    with open_warehouse(con, path, purpose=f"{name}: reading the ledger"):
        known = record.latest_extractions(con, name, [partition.key for partition in partitions])
        columns = {table: stored_columns(con, name, table) for table in {e.table_name for e in known.values()}}
    missing = f"it has no features yet: materialize {name}/features with it"
    batches = [_Batch({}, [], [(p, missing) for p in partitions if p.key not in known])]
    for table in sorted(columns):

        def stage(entries: list[ExtractionEntry], table: str = table) -> None:
            with open_warehouse(con, path, purpose=f"{name}: reading features"):
                load_features(con, name, table, [entry.revision for entry in entries])

        made = [(p, known[p.key]) for p in partitions if p.key in known and known[p.key].table_name == table]
        batches.append(_Batch(columns[table], made, [], stage))
    return batches


def _chunks(made: Sequence[Made]) -> Iterator[list[Made]]:
    """The partitions in order, as many together as have about `CHUNK_ROWS` rows."""
    chunk: list[Made] = []
    for each in made:
        chunk.append(each)
        if sum(entry.rows_extracted for _, entry in chunk) >= CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
