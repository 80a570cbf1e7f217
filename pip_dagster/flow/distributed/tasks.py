"""What runs on the nodes of a cluster: a share of a partition extracted, and a share scored, as one machine does."""

from __future__ import annotations

import functools
import platform
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import PipelineError
from pip_dagster.flow.cost import Cost, Meter
from pip_dagster.flow.distributed.cluster import Trouble, check_node
from pip_dagster.flow.distributed.exchange import first_row_id, share_file, share_of, write, write_shares
from pip_dagster.flow.distributed.model_files import ModelFiles
from pip_dagster.flow.distributed.places import Places
from pip_dagster.flow.distributed.shared_stage import SharedStage
from pip_dagster.flow.extract import extract
from pip_dagster.flow.findings import ScoringPolicy
from pip_dagster.flow.fingerprints import Fingerprints
from pip_dagster.flow.profile import ToProfile, profiles_of
from pip_dagster.flow.score import Guarded, score
from pip_dagster.flow.stage import Stage
from pip_dagster.ledger.profiles import Profile
from pip_dagster.quoted import said
from pip_dagster.sql.names import quote_all
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.digest import RowSet
from pip_dagster.warehouse.memory import make_room, run_memory, with_more

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.spec import PipelineSpec
    from pip_dagster.privacy.suppressed import Incoming

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class TaskPlace:
    """What every task needs: the run's folder, where it writes, what versions it must have, and its threads."""

    exchange: str
    folder: str
    versions: str
    threads: int
    shares: int


@dataclass(frozen=True)
class ToExtract:
    """Partitions whose features are to be extracted by shares, from sources that are as `places` says.

    `people`: what happens to their rows; a task has no warehouse, which says who is suppressed. `once`: one task
    extracts all shares, since the SQL may choose other rows each time it runs.
    """

    place: TaskPlace
    pipeline: Pipeline
    partitions: Sequence[Partition]
    as_known: bool
    places: Places
    people: Incoming | None
    once: bool


@dataclass(frozen=True)
class ExtractedShare:
    """The features of a share, or of all: share → its files; `failed`: partition → why."""

    files: dict[int, list[str]]
    columns: dict[str, str]
    row_sets: dict[str, RowSet]
    failed: dict[str, str]
    cost: Cost
    node: str


@dataclass(frozen=True)
class ToScore:
    """Features that are to be scored by shares. `quarantine`: a file of the rows that expectations quarantined."""

    place: TaskPlace
    spec: PipelineSpec
    partitions: Sequence[str]
    columns: dict[str, str]
    files: Mapping[int, list[str]]
    quarantine: str
    policy: ScoringPolicy
    profiles: bool


@dataclass(frozen=True)
class ScoredShare:
    """The scores of a share in `scores`, its quarantine in `quarantine`, and what was counted."""

    scores: str
    quarantine: str
    guarded: Guarded
    failed: dict[str, str]
    profiles: dict[str, list[Profile]]
    cost: Cost
    node: str


def _reported(task: Callable[Concatenate[int, P], T]) -> Callable[Concatenate[int, P], T | Trouble]:
    """Return an error that a user can fix, instead of raising it: Ray would wrap it, and lose its type."""

    @functools.wraps(task)
    def run(share: int, /, *args: P.args, **kwargs: P.kwargs) -> T | Trouble:
        import duckdb

        try:
            return task(share, *args, **kwargs)
        except (PipelineError, OSError, MemoryError, duckdb.Error) as error:
            return Trouble(type(error).__name__, said(error), platform.node())

    return run


@_reported
def extract_share(share: int, to: ToExtract) -> ExtractedShare | Trouble:
    """Run the feature SQL for the rows of one share, check them, and write them to the exchange.

    The folder is new: a repeated task's rows may differ, and the first one, if its node only seemed lost, still write.
    """
    place, meter = to.place, Meter()
    folder, of_row = Path(place.folder) / secrets.token_hex(8), share_of(to.pipeline.spec.features.key, place.shares)
    if trouble := check_node(place.versions, place.exchange) or to.places.trouble():
        return trouble
    with workspace(threads=place.threads, memory_limit=run_memory(place.threads)) as con:
        stage, keys = Stage(con), [partition.key for partition in to.partitions]
        extraction = extract(
            *(stage, to.pipeline, to.partitions),
            people=to.people,
            as_known=to.as_known,
            only=None if to.once else f"{of_row} = {share}",
            sources=Fingerprints({key: {} for key in keys}),
        )
        # Read before and after: rows of two contents must not be mixed in one partition.
        if trouble := to.places.trouble():
            return trouble
        columns = f"{first_row_id(share)} + rowid AS rowid, partition_key, {quote_all(stage.columns)}"
        rows = f"SELECT {columns} FROM {stage.features}"
        if to.once:
            files = with_more(con, lambda: write_shares(con, rows, of_row, folder))
        else:
            files = {share: [share_file(folder, share)]}
            with_more(con, lambda: write(con, rows, files[share][0]))
    sets = {key: of.row_set for key, of in extraction.extracts.items()}
    return ExtractedShare(files, stage.columns, sets, extraction.failed, _cost(meter), _node())


@_reported
def score_share(share: int, to: ToScore, model: ModelFiles) -> ScoredShare | Trouble:
    """Guard and score the rows of one share, profile them, and write the scores to the exchange."""
    place, meter = to.place, Meter()
    if trouble := check_node(place.versions, place.exchange):
        return trouble
    version, predictor = model.predictor(place.threads)
    manifest, spec = version.manifest, to.spec
    with workspace(threads=place.threads, memory_limit=run_memory(place.threads)) as con:
        make_room(con, len(to.columns), place.threads)
        stage = SharedStage(con)
        stage.show_features(to.columns, {share: to.files[share]})
        stage.admit_all()
        stage.read_quarantine([to.quarantine])
        scores = score(stage, spec, predictor, manifest, to.partitions, to.policy)
        profiles: dict[str, list[Profile]] = {}
        if to.profiles:
            relation = stage.admitted if scores.guarded.apart else stage.features
            encoded, gains = scores.encoded, predictor.gains()
            of = ToProfile(con, relation, encoded, manifest, gains, stage.scores, scores.columns, spec.features.key)
            profiles = profiles_of(of, list(scores.scored))
        scored, quarantined = (share_file(f"{place.folder}/{name}", share) for name in ("scores", "quarantine"))
        write(con, f"SELECT {first_row_id(share)} + rowid AS rowid, * FROM {stage.scores}", scored)
        stage.write_quarantine(quarantined)
    return ScoredShare(scored, quarantined, scores.guarded, scores.failed, profiles, _cost(meter), _node())


def _cost(meter: Meter) -> Cost:
    return meter.shares({"": 1})[""]


def _node() -> str:
    """The id of this node; several of a test can be on one machine."""
    if "ray" not in sys.modules:
        return platform.node()
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else platform.node()
