"""The registry's alias moves in the warehouse's audit.

An alias moves in the registry's files, which no warehouse transaction covers. Each call therefore records every move
that the audit does not hold yet, including moves from Python and those whose process was killed before it recorded
them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pip_dagster.ledger import audit
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project
    from pip_dagster.registry.aliases import AliasChange
    from pip_dagster.registry.protocol import ModelRegistry


def record_promotions(project: Project) -> int:
    """Add the alias moves that the audit does not hold; how many. Creates the warehouse where there is none.

    Raises:
        WarehouseError: it stayed locked; the next call records them.
    """
    from pip_dagster.registry.store import Registry

    with (
        workspace(threads=1) as con,
        writing(con, project, purpose="recording promotions in the audit"),
        transaction(con),
    ):
        return append_promotions(con, Registry(project.registry))


def append_promotions(con: DuckDBPyConnection, registry: ModelRegistry) -> int:
    """The same inside a transaction on a warehouse that is open."""
    missing = unrecorded(con, registry)
    audit.append(
        con,
        [
            audit.Event(
                action="promotion",
                made_at=audit.micros(move.at),
                actor=move.by,
                pipeline=None,
                subject={"model": model, "alias": move.alias},
                details={"from": move.previous, "to": move.version, "why": move.why}
                | ({"rollback_id": move.rollback_id} if move.rollback_id else {}),
            )
            for model, move in missing
        ],
    )
    return len(missing)


def unrecorded(con: DuckDBPyConnection, registry: ModelRegistry) -> list[tuple[str, AliasChange]]:
    """Alias moves that the audit does not hold yet, oldest first, each with its model."""
    rows = con.execute("SELECT subject, epoch_us(made_at) FROM ledger.audit WHERE action = 'promotion'").fetchall()
    subjects = [(json.loads(subject), at) for subject, at in rows]
    known = {(subject["model"], subject["alias"], at) for subject, at in subjects}
    moves = [(model, move) for model, listed in alias_moves(registry).items() for move in listed]
    missing = [(model, move) for model, move in moves if (model, move.alias, audit.micros(move.at)) not in known]
    return sorted(missing, key=lambda each: each[1].at)


def alias_moves(registry: ModelRegistry) -> dict[str, list[AliasChange]]:
    """Every alias move of every model, oldest first."""
    return {model: registry.alias_history(model) for model in registry.models()}
