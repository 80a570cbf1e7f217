"""A backfill: past partitions built chunk by chunk, each committed by itself, and resumed where it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pip_dagster import clock
from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.ranges import contiguous
from pip_dagster.errors import BackfillError, NoWarehouseError
from pip_dagster.flow.materialize import materialize
from pip_dagster.ledger.backfills import Backfill, backfills_of, finished_keys, insert_backfill, rolled_back_since
from pip_dagster.ledger.promotions import check_moves
from pip_dagster.ledger.record import RunInfo, new_id
from pip_dagster.plural import plural
from pip_dagster.privacy.retention import past_content, refusal
from pip_dagster.registry.choose import registry_of, version_withdrawn
from pip_dagster.registry.store import Registry
from pip_dagster.warehouse.access import complete_publications, reading, writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.flow.result import PartitionResult
    from pip_dagster.flow.run import Stored

Only = Literal["stale", "missing"]
# Chunks if the declaration sets no size: a kill costs at most one chunk's features; each chunk reads the sources once.
_CHUNK, _MOST_CHUNKS = 31, 24

RunChunk = Callable[[Backfill, Sequence[Partition]], Iterator["PartitionResult"]]


@dataclass(frozen=True)
class Work:
    """A backfill and its remaining partitions, in chunks without gaps."""

    backfill: Backfill
    chunks: list[list[Partition]]
    done: int
    resumed: bool
    # Interrupted backfills of the same partitions: the user may want to resume one instead.
    unfinished: list[Backfill] = field(default_factory=list)
    published: int = 0  # partitions that were pending, and are published now
    on_hold: Mapping[str, str] = field(default_factory=dict)  # left out by `only`: partition key → why
    expired: Sequence[str] = ()  # left out: past `privacy.retention.content`
    recorded: bool = True  # whether the ledger has it, so that it can be resumed

    @property
    def remaining(self) -> int:
        """How many partitions remain."""
        return sum(map(len, self.chunks))


@dataclass(frozen=True)
class BackfillRequest:
    """A backfill of the partitions from `first` to `last`, or of those that the plan lists as stale or missing.

    It scores with one version from beginning to end: `version`, or the one that the alias names now.
    """

    first: str | None
    last: str | None
    by: str
    only: Only | None = None
    version: int | None = None
    as_known: bool = False
    why: str = ""


def begin(pipeline: Pipeline, request: BackfillRequest, *, chunk: int | None = None, dry_run: bool = False) -> Work:
    """A new backfill of what is requested, recorded unless it is a `dry_run`.

    Raises:
        BackfillError: a key names no partition that can be built by now, or the range is empty.
        LostMove: the alias's history lacks the move that was recorded last.
        ModelNotFound: there is no such version.
    """
    spec = pipeline.spec
    partitions = _range(pipeline, request.first, request.last)
    on_hold: dict[str, str] = {}
    expired = past_content(spec, partitions, clock.now())
    if partitions and len(expired) == len(partitions):
        raise BackfillError(f"Pipeline {spec.name}, partition {partitions[-1].key}: {refusal(spec, partitions[-1])}.")
    partitions = [partition for partition in partitions if partition.key not in expired]
    if request.only:
        wanted, on_hold = _stale(pipeline, partitions, request.only)
        partitions = [partition for partition in partitions if partition.key in wanted]
    backfill = _requested(pipeline, request, partitions, f"backfill-{new_id()}", chunk)
    unfinished: list[Backfill] = []
    opened = reading if dry_run else writing  # a dry run does not create a warehouse
    with (
        workspace(threads=1) as con,
        suppress(NoWarehouseError),
        opened(con, pipeline.project, purpose="beginning a backfill"),
    ):
        if request.version is None:
            _check_moves(con, pipeline)
        for earlier in backfills_of(con, spec.name):
            same = earlier.partition_keys == backfill.partition_keys
            is_open = same and finished_keys(con, earlier.backfill_id) < set(earlier.partition_keys)
            if is_open and not _withdrawn(con, pipeline, earlier):
                unfinished.append(earlier)
        if not dry_run and partitions:
            with transaction(con):
                insert_backfill(con, backfill)
    chunks = _chunks(pipeline, partitions, chunk)
    return Work(backfill, chunks, 0, False, unfinished, on_hold=on_hold, expired=sorted(expired))


def unrecorded(pipeline: Pipeline, partitions: Sequence[Partition], *, by: str, why: str = "") -> Work:
    """Work on these partitions by the version that the alias names now, which the ledger does not record as a backfill.

    It is not resumed: what it left out is stale still.

    Raises:
        LostMove: the alias's history lacks the move that was recorded last.
        ModelNotFound: the alias names no version.
    """
    request = BackfillRequest(None, None, by, why=why)
    backfill = _requested(pipeline, request, partitions, f"run-{new_id()}", None)
    with (
        workspace(threads=1) as con,
        suppress(NoWarehouseError),
        reading(con, pipeline.project, purpose="beginning a run"),
    ):
        _check_moves(con, pipeline)
    return Work(backfill, _chunks(pipeline, partitions, None), 0, False, recorded=False)


def _requested(
    pipeline: Pipeline, request: BackfillRequest, partitions: Sequence[Partition], name: str, chunk: int | None
) -> Backfill:
    scoring = pipeline.spec.scoring
    model = registry_of(pipeline.project, scoring).get(scoring.model_name, request.version or scoring.alias)
    return Backfill(
        name,
        pipeline.spec.name,
        [partition.key for partition in partitions],
        model.version,
        request.version is not None,
        request.as_known,
        request.why,
        request.by,
        clock.now(),
        chunk,
    )


def _check_moves(con: DuckDBPyConnection, pipeline: Pipeline) -> None:
    scoring = pipeline.spec.scoring
    if scoring.registry == "folder":
        check_moves(con, Registry(pipeline.project.registry), scoring.model_name, scoring.alias)


def resume(pipeline: Pipeline, backfill_id: str | None, *, chunk: int | None = None, dry_run: bool = False) -> Work:
    """The partitions that a backfill has not committed yet; of the newest unfinished one if none is named.

    What was committed and not published is published first, unless it is a `dry_run`.

    Raises:
        BackfillError: there is no such backfill, or a rollback since it began takes precedence.
    """
    name = pipeline.spec.name
    published = 0 if dry_run else complete_publications(pipeline.project)
    try:
        with workspace(threads=1) as con, reading(con, pipeline.project, purpose="resuming a backfill"):
            known = {each.backfill_id: each for each in backfills_of(con, name)}
            done = {key: finished_keys(con, key) for key in known if backfill_id in (None, key)}
    except NoWarehouseError:
        raise BackfillError(f"Pipeline {name} has no backfill to resume: nothing was ever built.") from None
    if backfill_id is None:
        open_ones = [key for key in known if done[key] < set(known[key].partition_keys)]
        if not open_ones and not (published and known):
            also = f"{plural(published, 'pending partition')} published. " if published else ""
            raise BackfillError(f"{also}Pipeline {name} has no unfinished backfill; begin one with --from and --to.")
        backfill_id = (open_ones or list(known))[0]  # to publish was all that was left to do of the newest
    if backfill_id in known:
        check_not_withdrawn(pipeline, known[backfill_id])
    else:
        listed = ", ".join(list(known)[:5]) or "none"
        raise BackfillError(f"Pipeline {name} has no backfill {backfill_id!r}; its newest are: {listed}.")
    backfill, finished = known[backfill_id], done[backfill_id]
    wanted = set(backfill.partition_keys) - finished
    partitions = [p for p in closed_partitions(pipeline.spec.partitions, datetime.now(UTC)) if p.key in wanted]
    if len(partitions) < len(wanted):
        raise BackfillError(
            f"Pipeline {name}: {backfill_id} has {plural(len(wanted) - len(partitions), 'partition')} outside of the "
            "declared grid; begin a new backfill."
        )
    chunks = _chunks(pipeline, partitions, chunk or backfill.chunk)
    return Work(backfill, chunks, len(finished), True, published=published)


def check_not_withdrawn(pipeline: Pipeline, backfill: Backfill) -> None:
    """Check before each chunk: a rollback takes precedence over any backfill that began before it.

    Raises:
        BackfillError: partitions of the backfill, or its version, were rolled back since it began.
    """
    why = None
    with (
        suppress(NoWarehouseError),
        workspace(threads=1) as con,
        reading(con, pipeline.project, purpose="resuming a backfill"),
    ):
        why = _withdrawn(con, pipeline, backfill)
    if why:
        raise BackfillError(
            f"Pipeline {pipeline.spec.name}: since {backfill.backfill_id} began {why}. Resuming it would undo that; "
            "begin a new backfill instead."
        )


def _withdrawn(con: DuckDBPyConnection, pipeline: Pipeline, backfill: Backfill) -> str | None:
    began = backfill.made_at
    if rolled_back := rolled_back_since(
        con, pipeline.spec.name, backfill.partition_keys, began, but_by=backfill.backfill_id
    ):
        key, by, why = rolled_back[0]
        more = f" and {len(rolled_back) - 1} more" if len(rolled_back) > 1 else ""
        return f"{key}{more} of its partitions was {why} (by {by})"
    return version_withdrawn(pipeline, backfill.model_version, began)


def run_in_process(
    pipeline: Pipeline,
    progress: Callable[[str], None],
    *,
    stored: Stored | None = None,
    allow_fewer_rows: bool = False,
) -> RunChunk:
    """Build chunks in this process, without Dagster; `stored` is called with what was committed."""

    def run(backfill: Backfill, chunk: Sequence[Partition]) -> Iterator[PartitionResult]:
        run = RunInfo(
            *(backfill.backfill_id, backfill.made_by, backfill.backfill_id, backfill.why),
            pinned_version=backfill.pinned_version,
            as_known=backfill.as_known,
        )
        return materialize(
            *(pipeline, chunk, run),
            version=backfill.model_version,
            as_known=backfill.as_known,
            allow_fewer_rows=allow_fewer_rows,
            progress=progress,
            stored=stored,
        )

    return run


def _range(pipeline: Pipeline, first: str | None, last: str | None) -> list[Partition]:
    partitions = closed_partitions(pipeline.spec.partitions, datetime.now(UTC))
    places = {partition.key: i for i, partition in enumerate(partitions)}
    there = f"{partitions[0].key} to {partitions[-1].key}" if partitions else "none yet"
    for key in (first, last):
        if key is not None and key not in places:
            raise BackfillError(
                f"Pipeline {pipeline.spec.name} has no partition {key!r} that can be built by now; it has {there}."
            )
    begin = places[first] if first else 0
    end = places[last] + 1 if last else len(partitions)
    if begin >= end:
        raise BackfillError(f"No partition lies from {first} to {last}; {pipeline.spec.name} has {there}.")
    return partitions[begin:end]


def _stale(pipeline: Pipeline, partitions: list[Partition], only: Only) -> tuple[set[str], dict[str, str]]:
    """The keys that the plan lists so, and those on hold with the reason."""
    from pip_dagster.flow.plan import make_plan

    plan = make_plan(pipeline, partitions)
    on_hold = {each.partition.key: "; ".join(reason.text for reason in each.reasons) for each in plan.on_hold}
    listed = (each for each in plan.stale if only == "stale" or any(r.kind == "missing" for r in each.reasons))
    return {each.partition.key for each in listed}, on_hold


def _chunks(pipeline: Pipeline, partitions: Sequence[Partition], size: int | None) -> list[list[Partition]]:
    """Partitions without gaps, as many together as one run takes."""
    size = size or pipeline.spec.partitions.max_per_run or max(_CHUNK, -(-len(partitions) // _MOST_CHUNKS))
    return contiguous(partitions, at_most=size)
