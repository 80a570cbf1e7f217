"""The registry's alias moves in the warehouse's audit.

An alias moves in the registry's files, which no warehouse transaction covers. The command that moves it records its own
move and no other. A move that no command recorded is one that somebody wrote into the file, or made from Python or in
MLflow: `audit verify` reports it, until a person accepts it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pip_dagster.errors import RegistryError
from pip_dagster.ledger import audit
from pip_dagster.ledger.record import dicts
from pip_dagster.registry.aliases import rollback_of
from pip_dagster.registry.errors import LostMove
from pip_dagster.registry.store import Registry
from pip_dagster.warehouse import stamp
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project
    from pip_dagster.registry.aliases import AliasChange
    from pip_dagster.registry.protocol import ModelRegistry

Move = tuple[str, "AliasChange"]  # model and move

_NEWEST = """
  SELECT subject->>'model' AS model, subject->>'alias' AS alias, actor, details, epoch_us(made_at) AS made_at
  FROM ledger.audit WHERE action = 'promotion'
  QUALIFY row_number() OVER (PARTITION BY model, alias ORDER BY seq DESC) = 1 ORDER BY model, alias
"""


def record_promotions(project: Project, own: Move | None = None, **accepted: str) -> int:
    """Add `own`, the move of a command, if the audit does not hold it; without it, every move that it does not hold.

    Creates the warehouse where there is none. `accepted`: who accepted moves that are not their own (`by`) and `why`.
    Returns how many were added.

    Raises:
        WarehouseError: it stayed locked; the same call records them.
    """
    with workspace(threads=1) as con, writing(con, project, purpose="recording promotions in the audit"):
        with transaction(con):
            count = append_promotions(con, Registry(project.registry), own, **accepted)
        write_registry_stamp(con, project)
    return count


def append_promotions(
    con: DuckDBPyConnection, registry: ModelRegistry, own: Move | None = None, **accepted: str
) -> int:
    """The same inside a transaction on a warehouse that is open."""
    missing = [each for each in unrecorded(con, registry) if own is None or each == own]
    audit.append(con, [_event(registry, *each, accepted) for each in missing])
    return len(missing)


def write_registry_stamp(con: DuckDBPyConnection, project: Project) -> None:
    """Note in the registry how far the audit is that holds its moves; not where the registry may only be read."""
    with suppress(OSError):
        stamp.write(con, stamp.registry_stamp(project))


def check_moves(con: DuckDBPyConnection, registry: Registry, model: str, alias: str) -> None:
    """Check that an alias's history has the move that was recorded last. The warehouse is the current catalog.

    Raises:
        LostMove: it has not, so that the alias may name a version that was replaced since.
    """
    for _, recorded, now in _lost(con, registry, (model, alias)):
        before = f"v{recorded['from']}" if recorded["from"] else "not set"
        raise LostMove(
            f"{model}: alias {alias!r} is {f'v{now.version}' if now else 'not set'}, and its history has no longer the "
            f"move from {before} to v{recorded['to']} that the audit recorded last (by {recorded['actor']}, "
            f"{audit.instant(recorded['made_at']):%Y-%m-%d %H:%M:%S}): the registry {registry.root} was restored from "
            "an older backup, or the history was edited. Restore the newest backup, or move the alias with "
            "`pip-dagster models promote`"
            + ("; `pip-dagster audit accept --moves --why TEXT` accepts the history as it is." if now else ".")
        )


def accept_lost(con: DuckDBPyConnection, registry: Registry, **accepted: str) -> int:
    """Record the present move of each alias that `check_moves` refuses, as accepted; returns how many."""
    kept = [(model, now) for model, _, now in _lost(con, registry) if now]
    audit.append(con, [_event(registry, *each, accepted | {"history": "as it is"}) for each in kept])
    return len(kept)


def _lost(
    con: DuckDBPyConnection, registry: Registry, only: tuple[str, str] | None = None
) -> Iterator[tuple[str, dict[str, Any], AliasChange | None]]:
    """Model, the move of an alias that was recorded last, and the registry's last, where its history lacks the first.

    `only`: a model and its alias.
    """
    for row in dicts(con.execute(_NEWEST)):
        if only and (row["model"], row["alias"]) != only:
            continue
        recorded = row | json.loads(row["details"])
        history = registry.alias_history(row["model"], row["alias"])
        wanted = (*(recorded[name] for name in ("from", "to", "actor", "made_at", "why")),)
        moves = ((each.previous, each.version, each.by, audit.micros(each.at), each.why) for each in history)
        if wanted not in moves:
            yield row["model"], recorded, history[-1] if history else None


def _event(registry: ModelRegistry, model: str, move: AliasChange, accepted: dict[str, str]) -> audit.Event:
    details: dict[str, Any] = {"from": move.previous, "to": move.version, "why": move.why}
    if move.rollback_id:
        details["rollback_id"] = move.rollback_id
    try:
        version = Registry(registry.root).get(model, move.version)
        details |= {"model_digest": version.digest, "manifest_digest": version.manifest_digest}
    except RegistryError:  # a version that is gone; `verify` reports it where it was recorded
        pass
    details |= {f"accepted_{name}": text for name, text in accepted.items()}
    return audit.Event(
        action="promotion",
        made_at=audit.micros(move.at),
        actor=move.by,
        pipeline=None,
        subject={"model": model, "alias": move.alias},
        details=details,
    )


def unrecorded(con: DuckDBPyConnection, registry: ModelRegistry) -> list[Move]:
    """Alias moves that the audit does not hold, each with its model, in the order of the histories."""
    rows = con.execute(
        "SELECT actor, subject, details, epoch_us(made_at) FROM ledger.audit WHERE action = 'promotion'"
    ).fetchall()
    known: Counter[tuple[object, ...]] = Counter()
    for actor, subject, details, at in rows:
        of, to = json.loads(subject), json.loads(details)
        rollback_id = to.get("rollback_id") or rollback_of(to["why"])
        known[of["model"], of["alias"], to["from"], to["to"], actor, at, to["why"], rollback_id] += 1
    missing: list[Move] = []
    for model, move in _ordered(alias_moves(registry)):
        its = (model, move.alias, move.previous, move.version, move.by, audit.micros(move.at), move.why)
        if known[*its, move.rollback_id]:
            known[*its, move.rollback_id] -= 1
        else:
            missing.append((model, move))
    return missing


def _ordered(moves: dict[str, list[AliasChange]]) -> Sequence[Move]:
    return [(model, move) for model, listed in moves.items() for move in listed]


def alias_moves(registry: ModelRegistry) -> dict[str, list[AliasChange]]:
    """Every alias move of every model, oldest first."""
    return {model: registry.alias_history(model) for model in registry.models()}
