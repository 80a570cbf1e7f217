"""A backfill: past partitions built chunk by chunk, each committed by itself, and resumed where it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.declaration.partition import Partition
from pip_dagster.declaration.ranges import contiguous
from pip_dagster.errors import BackfillError, NoWarehouseError
from pip_dagster.flow.materialize import materialize
from pip_dagster.flow.withdrawn import version_withdrawn
from pip_dagster.ledger.backfills import Backfill, backfills_of, finished_keys, insert_backfill, rolled_back_since
from pip_dagster.ledger.record import RunInfo, new_id
from pip_dagster.registry.choose import registry_of
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.flow.result import PartitionResult

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
    # Interrupted backfills of the same request: the user may want to resume one instead.
    unfinished: list[str] = field(default_factory=list)

    @property
    def remaining(self) -> int:
        """How many partitions remain."""
        return sum(map(len, self.chunks))


def begin(
    pipeline: Pipeline,
    *,
    first: str | None,
    last: str | None,
    only: Only | None = None,
    version: int | None = None,
    as_known: bool = False,
    why: str = "",
    by: str,
    chunk: int | None = None,
    dry_run: bool = False,
) -> Work:
    """A new backfill of the partitions from `first` to `last`, recorded unless it is a `dry_run`.

    It scores with one version from beginning to end: `version`, or the one that the alias names now.

    Raises:
        BackfillError: a key names no partition that can be built by now, or the range is empty.
        ModelNotFound: there is no such version.
    """
    spec = pipeline.spec
    partitions = _range(pipeline, first, last)
    model = registry_of(pipeline.project, spec.scoring).get(spec.scoring.model_name, version or spec.scoring.alias)
    if only:
        wanted = _stale(pipeline, partitions, only)
        partitions = [partition for partition in partitions if partition.key in wanted]
    backfill = Backfill(
        f"backfill-{new_id()}",
        spec.name,
        [partition.key for partition in partitions],
        model.version,
        version is not None,
        as_known,
        why,
        by,
        datetime.now(UTC),
        chunk,
    )
    unfinished: list[str] = []
    # A dry run does not create a warehouse.
    with (
        workspace(threads=1) as con,
        suppress(NoWarehouseError),
        open_warehouse(con, pipeline.project.warehouse, purpose="beginning a backfill", read_only=dry_run),
    ):
        for earlier in backfills_of(con, spec.name):
            same = (earlier.partition_keys, earlier.pinned) == (backfill.partition_keys, backfill.pinned)
            is_open = same and finished_keys(con, earlier.backfill_id) < set(earlier.partition_keys)
            if is_open and not _withdrawn(con, pipeline, earlier):
                unfinished.append(earlier.backfill_id)
        if not dry_run and partitions:
            with transaction(con):
                insert_backfill(con, backfill)
    return Work(backfill, _chunks(pipeline, partitions, chunk), 0, False, unfinished)


def resume(pipeline: Pipeline, backfill_id: str | None, *, chunk: int | None = None) -> Work:
    """The partitions that a backfill has not committed yet; of the newest unfinished one if none is named.

    Raises:
        BackfillError: there is no such backfill, or a rollback since it began takes precedence.
    """
    name = pipeline.spec.name
    warehouse, purpose = pipeline.project.warehouse, "resuming a backfill"
    try:
        with workspace(threads=1) as con, open_warehouse(con, warehouse, purpose=purpose, read_only=True):
            known = {each.backfill_id: each for each in backfills_of(con, name)}
            done = {key: finished_keys(con, key) for key in known if backfill_id in (None, key)}
    except NoWarehouseError:
        raise BackfillError(f"Pipeline {name} has no backfill to resume: nothing was ever built.") from None
    if backfill_id is None:
        open_ones = [key for key in known if done[key] < set(known[key].partition_keys)]
        if not open_ones:
            raise BackfillError(f"Pipeline {name} has no unfinished backfill; begin one with --from and --to.")
        backfill_id = open_ones[0]
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
            f"Pipeline {name}: {len(wanted) - len(partitions)} partitions of {backfill_id} are not in the declared "
            "grid any more; begin a new backfill."
        )
    return Work(backfill, _chunks(pipeline, partitions, chunk or backfill.chunk), len(finished), True)


def check_not_withdrawn(pipeline: Pipeline, backfill: Backfill) -> None:
    """Check before each chunk: a rollback takes precedence over any backfill that began before it.

    Raises:
        BackfillError: partitions of the backfill, or its version, were rolled back since it began.
    """
    path = pipeline.project.warehouse
    with workspace(threads=1) as con, open_warehouse(con, path, purpose="resuming a backfill", read_only=True):
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


def run_in_process(pipeline: Pipeline, progress: Callable[[str], None], *, allow_fewer_rows: bool = False) -> RunChunk:
    """Build chunks in this process, without Dagster."""

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


def _stale(pipeline: Pipeline, partitions: list[Partition], only: Only) -> set[str]:
    from pip_dagster.flow.plan import make_plan

    stale = make_plan(pipeline, partitions).stale
    return {each.partition.key for each in stale if only == "stale" or any(r.kind == "missing" for r in each.reasons)}


def _chunks(pipeline: Pipeline, partitions: Sequence[Partition], size: int | None) -> list[list[Partition]]:
    """Partitions without gaps, as many together as one run takes."""
    size = size or pipeline.spec.partitions.max_per_run or max(_CHUNK, -(-len(partitions) // _MOST_CHUNKS))
    return contiguous(partitions, at_most=size)
