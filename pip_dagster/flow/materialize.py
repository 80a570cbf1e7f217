"""A range of partitions from sources to published predictions, each committed whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypedDict, Unpack

from pip_dagster import clock
from pip_dagster.declaration.partition import Partition
from pip_dagster.flow.distributed.cluster import connected
from pip_dagster.flow.distributed.shared_stage import SharedStage
from pip_dagster.flow.engine import available_threads
from pip_dagster.flow.entries import failed_extraction
from pip_dagster.flow.extract import extract
from pip_dagster.flow.fingerprints import Fingerprints
from pip_dagster.flow.fit import check_fit
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.predict import Made, judge_features, predict
from pip_dagster.flow.result import PartitionResult
from pip_dagster.flow.run import Run
from pip_dagster.flow.shadow import shadow
from pip_dagster.flow.split import split
from pip_dagster.flow.stage import Stage, stored_columns
from pip_dagster.flow.store_features import store_features
from pip_dagster.flow.store_scores import store_failure
from pip_dagster.flow.storing import together
from pip_dagster.ledger import record
from pip_dagster.ledger.observations import add_observations
from pip_dagster.ledger.record import ExtractionEntry, RunInfo
from pip_dagster.ledger.small_blocks import fit_blocks
from pip_dagster.loaded import loading
from pip_dagster.privacy.retention import past_content, refusal
from pip_dagster.privacy.suppressed import incoming
from pip_dagster.warehouse import blocks
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.faults import in_pipeline
from pip_dagster.warehouse.lock import take_waited
from pip_dagster.warehouse.memory import make_room, rows_for, run_memory
from pip_dagster.warehouse.transaction import transaction
from pip_dagster.warehouse.windows import in_windows

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.flow.run import Stored

LOG = logging.getLogger("pip_dagster")

# Rows scored before the first of them are committed: what a kill may cost, against the cost of a call per partition.
# Fewer of more than 50 columns.
CHUNK_ROWS = 200_000


class Requested(TypedDict, total=False):
    """What may be requested of a run.

    `version`: score with this version of the model instead of the alias's. `as_known`: build each partition's features
    from the rows that were known at its own close. `allow_fewer_rows`: partitions go live however few rows they have.
    `stored`: called with what was committed, by the run. `read`: called with what the sources held.
    """

    version: int | None
    as_known: bool
    allow_fewer_rows: bool
    stored: Stored | None
    read: Callable[[Fingerprints], None] | None


def materialize(
    pipeline: Pipeline,
    partitions: Sequence[Partition],
    info: RunInfo,
    *,
    features: bool = True,
    predictions: bool = True,
    progress: Callable[[str], None] = LOG.info,
    **requested: Unpack[Requested],
) -> Iterator[PartitionResult]:
    """Build the features, the predictions, or both, of each partition; a result for each soon after it is stored.

    A partition whose rows are bad fails alone and its stored past stays as it was. What is already there with the
    same content, model, declaration and libraries is not built again.

    Raises:
        DeclarationError: nothing can be built: the SQL cannot run, a model is missing or does not fit.
        SourceError: a source cannot be read.
        WarehouseError: the warehouse cannot be opened.
        RegistryError: the model's bytes are not those that were registered, or are gone.
        SpillError: what outgrows memory cannot be written.
    """
    spec = pipeline.spec
    expired = past_content(spec, partitions, clock.now())
    for partition in partitions:
        if partition.key in expired:
            yield PartitionResult(partition, error=refusal(spec, partition))
    partitions = [partition for partition in partitions if partition.key not in expired]
    if not partitions:
        return
    take_waited()  # what it waited before is of other work
    with in_pipeline(spec.name, [partition.key for partition in partitions]):
        with loading("tables"):  # DuckDB would, for the first parameter of a query and the first batch
            import pandas  # noqa: F401
            import pyarrow  # noqa: F401

        threads = available_threads()
        version = requested.get("version")
        model = ScoringModel.resolve(pipeline, threads, version=version) if predictions else None
        with (
            connected(pipeline, progress) as cluster,
            workspace(threads=threads, memory_limit=run_memory(threads)) as con,
        ):
            known, fewer = requested.get("as_known", False), requested.get("allow_fewer_rows", False)
            people = incoming(pipeline)
            run = Run(con, pipeline, info, progress, fewer, known, requested.get("stored"), cluster, people)
            read = requested.get("read") or (lambda _: None)
            # Partitions that need a cluster are extracted one at a time: their rows lie in its exchange.
            together = [[partition] for partition in partitions] if cluster else [partitions]
            batches = (_extract(run, each, model, read) for each in together) if features else _stored(run, partitions)
            for batch in batches:
                yield from (PartitionResult(partition, error=error) for partition, error in batch.failed)
                yield from judge_features(run, batch.stage, batch.made) if model is None else _score(run, model, batch)
                if cluster:
                    cluster.clear()


@dataclass(frozen=True)
class _Batch:
    """Partitions whose features have the same columns, in one stage; and those that failed."""

    stage: Stage
    made: list[Made]
    failed: list[tuple[Partition, str]]


def _score(run: Run, model: ScoringModel, batch: _Batch) -> Iterator[PartitionResult]:
    for chunk in _chunks(batch.made, rows_for(CHUNK_ROWS, len(batch.stage.columns))):
        run.progress(f"{run.pipeline.spec.name}: scoring {chunk[0][0].key} to {chunk[-1][0].key}")
        results = predict(run, batch.stage, model, chunk)
        yield from split(run, model, shadow(run, batch.stage, model, results))


def _extract(
    run: Run, partitions: Sequence[Partition], model: ScoringModel | None, read: Callable[[Fingerprints], None]
) -> _Batch:
    con, pipeline, name = run.con, run.pipeline, run.pipeline.spec.name
    run.progress(f"{name}: extracting the features of {len(partitions)} partitions")
    stage = _stage(run)
    if isinstance(stage, SharedStage) and run.cluster:
        from pip_dagster.flow.distributed.extract_shares import extract_shares

        extraction = extract_shares(stage, run.cluster, pipeline, partitions, run.people, as_known=run.as_known)
    else:
        extraction = extract(stage, pipeline, partitions, people=run.people, as_known=run.as_known)
    read(extraction.sources)
    if model:  # before a revision is kept, so that SQL which lost a column stores nothing
        check_fit(pipeline, model.version.manifest, stage.columns)
    made = [partition for partition in partitions if partition.key in extraction.extracts]
    failed = [(p, extraction.failed[p.key]) for p in partitions if p.key in extraction.failed]

    def fail(partition: Partition, why: str) -> list[ExtractionEntry]:
        store_failure(con, failed_extraction(run, model, partition, why, extraction.sources.of[partition.key]))
        return []

    def observe(seen: Fingerprints) -> list[ExtractionEntry]:
        with transaction(con):
            add_observations(con, name, seen.buckets, seen.ranges, extraction.read_at)
        return []

    _make_room(run, len(stage.columns))
    # All in the same windows: for a single date, opening the warehouse costs more than what is stored.
    extracts = [extraction.extracts[partition.key] for partition in made]
    groups = together(extracts, lambda each: each.rows, len(stage.columns))
    work: list[Callable[[], list[ExtractionEntry]]] = [partial(store_features, run, stage, group) for group in groups]
    work += [partial(fail, *each) for each in failed]
    work.append(partial(observe, extraction.sources))
    shown = bool(failed) or model is None  # else the predictions that come next show what there is
    stored = in_windows(
        con, pipeline.project, work, lambda each: each(), purpose=f"{name}: storing features", publish=shown
    )
    entries = [entry for group in stored for entry in group]
    return _Batch(stage, list(zip(made, entries, strict=True)), failed)


def _stage(run: Run, columns: Mapping[str, str] | None = None, table: str | None = None) -> Stage:
    if run.cluster:
        return SharedStage(run.con, run.cluster, columns, table)
    return Stage(run.con, columns, table)


def _stored(run: Run, partitions: Sequence[Partition]) -> list[_Batch]:
    """The newest stored features of the partitions, a batch for each set of columns they have had."""
    con, name = run.con, run.pipeline.spec.name
    with writing(con, run.pipeline.project, purpose=f"{name}: reading the ledger", publish=False):
        known = record.latest_extractions(con, name, [partition.key for partition in partitions])
        columns = {table: stored_columns(con, name, table) for table in {e.table_name for e in known.values()}}
    missing = f"it has no features yet: materialize {name}/features with it"
    batches = [_Batch(Stage(con), [], [(p, missing) for p in partitions if p.key not in known])]
    for table in sorted(columns):
        made = [(p, known[p.key]) for p in partitions if p.key in known and known[p.key].table_name == table]
        batches.append(_Batch(_stage(run, columns[table], table), made, []))
    _make_room(run, max(map(len, columns.values()), default=0))
    return batches


def _make_room(run: Run, columns: int) -> None:
    """What reading and writing rows of so many columns takes, in the stage and the warehouse."""
    fits = fit_blocks(run.pipeline.project, columns, actor=run.info.made_by)
    make_room(run.con, columns, available_threads(), small=blocks.is_wide(columns) and fits)


def _chunks(made: Sequence[Made], rows: int) -> Iterator[list[Made]]:
    """The partitions in order, as many together as have about so many rows."""
    chunk: list[Made] = []
    for each in made:
        chunk.append(each)
        if sum(entry.rows_extracted for _, entry in chunk) >= rows:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
