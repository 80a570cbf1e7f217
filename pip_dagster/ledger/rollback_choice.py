"""What a rollback changes: the scorings that become live again, and where the alias goes. Nothing is written."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pip_dagster.errors import RollbackError
from pip_dagster.ledger import rollback_plan, rollback_read
from pip_dagster.ledger.rollback_plan import History, RollbackPlan
from pip_dagster.ledger.rollback_request import AliasMove, RollbackRequest, RollbackResult

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.aliases import AliasChange
    from pip_dagster.registry.protocol import ModelRegistry


def prepare(
    con: DuckDBPyConnection, declared: Pipeline, registry: ModelRegistry, request: RollbackRequest, dry_run: bool
) -> RollbackResult:
    """What the request would change.

    Raises:
        RollbackError: it is ambiguous or selects no partition, or the alias would move to a version it never named.
    """
    scoring = declared.spec.scoring
    wanted_partitions = request.between(declared.spec.partitions)
    histories = rollback_read.histories(con, request.pipeline, wanted_partitions)
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


def _describe(model: str, version: int | None) -> str:
    return f"{model} v{version}" if version is not None else "no version"
