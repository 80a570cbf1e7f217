"""Rollback: stored scorings become live again in one transaction; nothing is scored."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from pip_dagster import clock
from pip_dagster.errors import RollbackError, WarehouseError
from pip_dagster.ledger import audit, rollback_plan, rollback_read
from pip_dagster.ledger.live import LiveChange, insert_live_changes
from pip_dagster.ledger.promotions import append_promotions, write_registry_stamp
from pip_dagster.ledger.record import new_id
from pip_dagster.ledger.rollback_plan import Flip, History, Missing, RollbackPlan
from pip_dagster.registry.errors import RegistryUnreachable
from pip_dagster.warehouse.access import reading, see_newest, writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.faults import check_writable
from pip_dagster.warehouse.published import publish_pending
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project
    from pip_dagster.registry.aliases import AliasChange
    from pip_dagster.registry.protocol import ModelRegistry


class RollbackTarget(TypedDict, total=False):
    """What `rollback` goes back to, see `RollbackRequest`."""

    to_version: int | None
    partitions: tuple[str, str] | None
    as_of: datetime | None
    keep_alias: bool


@dataclass(frozen=True)
class RollbackRequest:
    """What to roll back to: the version before, `to_version`, or what was live `as_of`; of all or some `partitions`."""

    pipeline: str
    why: str
    by: str
    to_version: int | None = None
    partitions: tuple[str, str] | None = None
    as_of: datetime | None = None
    keep_alias: bool = False

    @property
    def moves_alias(self) -> bool:
        """Whether the alias moves too: a rollback of some partitions does not change what scores later ones."""
        return self.partitions is None and not self.keep_alias

    def check(self) -> None:
        """Raise RollbackError for a request that contradicts itself."""
        if self.to_version is not None and self.as_of is not None:
            raise RollbackError("A rollback goes to a version or to an instant, not to both: use only one of them.")
        if self.as_of and self.as_of.tzinfo is None:
            raise RollbackError(f"The instant {self.as_of} has no time zone; add one, for example +00:00.")
        if self.partitions and self.partitions[0] > self.partitions[1]:
            first, last = self.partitions
            raise RollbackError(f"No partition lies in {first}..{last}: the first is after the last.")


@dataclass(frozen=True)
class AliasMove:
    """A move of the pipeline's alias."""

    alias: str
    before: int | None
    after: int


@dataclass(frozen=True)
class RollbackResult:
    """What a rollback changed, or would change (`dry_run`).

    `kept`: partitions that needed no change. `resumed`: it completed one that was killed. `seconds`: of the
    transaction. `published`: partitions published afterwards.
    """

    rollback_id: str
    pipeline: str
    model_name: str
    flips: Sequence[Flip]
    missing: Sequence[Missing]
    kept: int
    version: int | None
    alias: AliasMove | None
    alias_version: int | None
    resumed: bool
    dry_run: bool
    seconds: float = 0.0
    published: int = 0

    @property
    def complete(self) -> bool:
        """Whether every requested partition is live with the requested scores."""
        return not self.missing


def rollback(
    project: Project,
    pipeline: str,
    *,
    why: str,
    by: str,
    dry_run: bool = False,
    **target: Unpack[RollbackTarget],
) -> RollbackResult:
    """Make earlier scorings live again. Partitions without such scores are listed and left unchanged.

    Without `to_version` or `as_of`, the version that went live last is withdrawn: each partition where it is live goes
    back to the scoring before it. `partitions` are the first and last key. A rollback of the whole pipeline first moves
    the alias, so that the next run scores with the version that is live. If the process is killed in between, the alias
    and the live scorings differ; the same call again completes the rollback.

    Raises:
        RollbackError: the request contradicts itself or is ambiguous, or selects no partition; or the alias would move
            to a version that it never named.
        AliasConflict: another process moved the alias meanwhile.
        ModelNotFound: there is no such version.
        WarehouseError: the warehouse cannot be opened.
    """
    from pip_dagster.declaration.find import find_pipeline
    from pip_dagster.registry.choose import registry_of
    from pip_dagster.registry.store import Registry

    request = RollbackRequest(pipeline, why, by, **target)
    request.check()
    declared = find_pipeline(project, pipeline)
    registry: ModelRegistry = Registry(project.registry)  # every version that scored is in the folder
    if request.to_version is not None:
        registry.get(declared.spec.scoring.model_name, request.to_version)
    if isinstance(project.warehouse, Path) and not project.warehouse.is_file():
        raise RollbackError(f"There is no warehouse {project.warehouse} yet, so there is nothing to roll back.")
    purpose = f"{pipeline}: rolling back"
    if request.moves_alias:
        try:
            registry = registry_of(project, declared.spec.scoring)
            registry.alias_history(declared.spec.scoring.model_name, declared.spec.scoring.alias)
        except RegistryUnreachable as error:
            raise RollbackError(
                f"Pipeline {pipeline}: {error}\nNothing was rolled back. --keep-alias rolls back without MLflow; point "
                "the alias back there before the next run, or that scores with the version that was withdrawn."
            ) from error
    if dry_run:
        with workspace(threads=2) as con, reading(con, project, purpose=purpose):
            return _prepare(con, declared, registry, request, dry_run=True)
    if request.moves_alias and not project.mlflow:
        check_writable(project.registry / declared.spec.scoring.model_name)
    with workspace(threads=2) as con, writing(con, project, purpose=purpose, publish=False):
        with transaction(con):
            see_newest(con)  # on a lake, of other machines since it was opened
            result = _prepare(con, declared, registry, request, dry_run=False)
            began = time.monotonic()
            if move := _own_move(registry, request, result):
                append_promotions(con, registry, (result.model_name, move))
            _flip(con, request, result)
        write_registry_stamp(con, project)
        seconds = time.monotonic() - began
        published = publish_pending(con, project)
    return replace(result, seconds=seconds, published=published)


def _prepare(
    con: DuckDBPyConnection, declared: Pipeline, registry: ModelRegistry, request: RollbackRequest, dry_run: bool
) -> RollbackResult:
    scoring = declared.spec.scoring
    histories = rollback_read.histories(con, request.pipeline, request.partitions)
    if not histories:
        where = f" from {request.partitions[0]} to {request.partitions[1]}" if request.partitions else ""
        raise RollbackError(f"Pipeline {request.pipeline} has nothing live{where}: there is nothing to roll back.")
    moves = registry.alias_history(scoring.model_name, scoring.alias) if request.moves_alias else []
    at_present = registry.alias(scoring.model_name, scoring.alias)
    unfinished = moves[-1].rollback_id if moves else None
    if unfinished and not rollback_read.is_unfinished(con, unfinished):
        unfinished = None
    publishes, resume = declared.project.publishes, unfinished is not None
    plan = _plan(con, histories, request, scoring.model_name, moves, resume=resume, publishes=publishes)
    wanted = plan.wanted[1] if plan.wanted and plan.wanted[0] == scoring.model_name else None
    target = wanted
    if request.as_of:
        target = next((move.version for move in reversed(moves) if move.at <= request.as_of), None)
    move = None
    if request.moves_alias and target is not None and target != at_present:
        if target not in {move.version for move in moves}:
            raise RollbackError(
                f"Pipeline {request.pipeline}: alias {scoring.alias!r} has never named {scoring.model_name} v{target}, "
                f"so it does not go back to it. Nothing was changed. `pip-dagster models promote {scoring.model_name} "
                f"v{target}` moves the alias, through the gates; --keep-alias makes stored scores live without it."
            )
        move = AliasMove(scoring.alias, at_present, target)
    return RollbackResult(
        rollback_id=unfinished if unfinished and not move else f"rollback-{secrets.token_hex(6)}",
        resumed=bool(unfinished and not move),
        pipeline=request.pipeline,
        model_name=scoring.model_name,
        flips=plan.flips,
        missing=plan.missing,
        kept=plan.kept,
        version=wanted,
        alias=move,
        alias_version=move.after if move else at_present,
        dry_run=dry_run,
    )


def _plan(
    con: DuckDBPyConnection,
    histories: Sequence[History],
    request: RollbackRequest,
    model: str,
    moves: Sequence[AliasChange],
    *,
    resume: bool,
    publishes: bool,
) -> RollbackPlan:
    if request.as_of:
        return rollback_plan.as_of(histories, request.as_of)
    if request.to_version is not None:
        scored = rollback_read.scored(con, request.pipeline, model, request.to_version)
        return rollback_plan.to_version(histories, model, request.to_version, scored)
    if publishes and rollback_read.is_unpublished(con, request.pipeline):
        # The interrupted rollback is committed; another one would go back one version too far.
        return RollbackPlan((), (), len(histories), None)
    live = rollback_plan.newest(histories).model
    if resume and moves[-1].previous is not None:
        return rollback_plan.to_previous(histories, (model, moves[-1].previous))
    at_present = moves[-1].version if moves else None
    if request.moves_alias and live != (model, at_present):
        raise RollbackError(
            f"Pipeline {request.pipeline}: the alias names {_describe(model, at_present)}, but what went live last is "
            f"{_describe(*live)}. Choose a version with --to, or use --keep-alias to withdraw {_describe(*live)}."
        )
    return rollback_plan.to_previous(histories, live)


def _own_move(registry: ModelRegistry, request: RollbackRequest, result: RollbackResult) -> AliasChange | None:
    """Move the alias; the move, or the one that was made before this rollback was interrupted."""
    if move := result.alias:
        return registry.set_alias(
            result.model_name,
            move.alias,
            move.after,
            by=request.by,
            why=f"{result.rollback_id}: {request.why}",
            expect=move.before,
            rollback_id=result.rollback_id,
        )
    moves = registry.alias_history(result.model_name) if result.resumed else []
    return next((move for move in reversed(moves) if move.rollback_id == result.rollback_id), None)


def _flip(con: DuckDBPyConnection, request: RollbackRequest, result: RollbackResult) -> None:
    """Record the live changes and the rollback, with their entries in the audit."""
    now, flips = clock.now(), result.flips
    if not (flips or result.alias or result.resumed):
        return
    ids = [new_id() for _ in flips]
    changes = [
        LiveChange(
            change_id=change_id,
            pipeline=request.pipeline,
            partition_key=flip.partition_key,
            scoring_id=flip.after.scoring_id,
            why=f"rolled back from {flip.before.label}: {request.why}",
            run_id=result.rollback_id,
            made_by=request.by,
            made_at=now,
            kind="rollback",
        )
        for change_id, flip in zip(ids, flips, strict=True)
    ]
    insert_live_changes(con, changes, [flip.after.arms for flip in flips])
    counted = con.execute(
        "SELECT count(*) FROM ledger.live WHERE pipeline = $pipeline AND list_contains($ids::VARCHAR[], change_id)",
        {"pipeline": request.pipeline, "ids": ids},
    ).fetchone()
    if counted != (len(ids),):
        raise WarehouseError(
            f"Pipeline {request.pipeline}: the ledger has live changes of a later time than this machine's clock, "
            f"{now:%Y-%m-%d %H:%M:%S %Z}. Nothing was rolled back; set the clock and retry."
        )
    move = result.alias
    details = {
        "why": request.why,
        "to_version": request.to_version,
        "as_of": request.as_of and request.as_of.isoformat(),
        "partitions": list(request.partitions) if request.partitions else None,
        "alias": {"name": move.alias, "from": move.before, "to": move.after} if move else None,
        "rolled_back": len(flips),
        "missing": [missing.partition_key for missing in result.missing],
    }
    subject = {"rollback_id": result.rollback_id}
    event = audit.Event("rollback", audit.micros(now), request.by, request.pipeline, subject, details)
    audit.append(con, [event])


def _describe(model: str, version: int | None) -> str:
    return f"{model} v{version}" if version is not None else "no version"
