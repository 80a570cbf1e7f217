"""Rollback: stored scorings become live again in one transaction; nothing is scored."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from pip_dagster import clock
from pip_dagster.errors import RollbackError, WarehouseError
from pip_dagster.ledger import audit
from pip_dagster.ledger.live import LiveChange, insert_live_changes
from pip_dagster.ledger.promotions import append_promotions, write_registry_stamp
from pip_dagster.ledger.record import new_id
from pip_dagster.ledger.rollback_choice import prepare
from pip_dagster.ledger.rollback_request import RollbackRequest, RollbackResult, RollbackTarget
from pip_dagster.registry.errors import RegistryUnreachable
from pip_dagster.warehouse.access import reading, see_newest, writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.faults import check_writable
from pip_dagster.warehouse.published import publish_pending
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project
    from pip_dagster.registry.aliases import AliasChange
    from pip_dagster.registry.protocol import ModelRegistry


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
            return prepare(con, declared, registry, request, dry_run=True)
    if request.moves_alias and not project.mlflow:
        check_writable(project.registry / declared.spec.scoring.model_name)
    with workspace(threads=2) as con, writing(con, project, purpose=purpose, publish=False):
        with transaction(con):
            see_newest(con)  # on a lake, of other machines since it was opened
            result = prepare(con, declared, registry, request, dry_run=False)
            began = time.monotonic()
            if move := _own_move(registry, request, result):
                append_promotions(con, registry, (result.model_name, move))
            _flip(con, request, result)
        write_registry_stamp(con, project)
        seconds = time.monotonic() - began
        published = publish_pending(con, project)
    return replace(result, seconds=seconds, published=published)


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
