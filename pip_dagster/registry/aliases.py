"""Aliases such as `champion`: names that move between versions, with the history of their moves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator, TypeAdapter, ValidationError

from pip_dagster import clock
from pip_dagster.registry.booster_signature import Record
from pip_dagster.registry.errors import AliasConflict, CorruptRegistry
from pip_dagster.registry.files import locked, of_registry, replace_atomically
from pip_dagster.warehouse.faults import remedy


class AliasChange(Record):
    """One move of an alias: to which version, from which (None: the alias was new), when, by whom and why.

    ``rollback_id``: the rollback that moved it; None for a promotion.
    """

    alias: str
    version: int
    previous: int | None
    at: AwareDatetime
    by: str
    why: str
    rollback_id: str | None = None


class Anywhere:
    """The default of `expect`: the alias may point anywhere, or not exist yet."""


ANYWHERE = Anywhere()


def rollback_of(why: str) -> str | None:
    """The rollback that an older move names in its text, from before moves had a ``rollback_id``."""
    found = re.match(r"(rollback-[0-9a-f]{12}): ", why)
    return found[1] if found else None


def _typed(move: object) -> object:
    if isinstance(move, dict) and "rollback_id" not in move:
        return move | {"rollback_id": rollback_of(str(move.get("why")))}
    return move


_HISTORY = TypeAdapter(list[Annotated[AliasChange, BeforeValidator(_typed)]])


def read_history(folder: Path, alias: str) -> list[AliasChange]:
    """An alias's moves, oldest first; empty if it was never set. The next move gets a later time than they have.

    Raises:
        CorruptRegistry: the file is not an alias history.
    """
    path = _path(folder, alias)
    try:
        history = _HISTORY.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CorruptRegistry(f"{path} cannot be read: {error.strerror}. {remedy(str(error))}") from error
    except ValidationError as error:
        raise CorruptRegistry(_damaged(path, alias, error.errors()[0]["msg"])) from error
    if not history:
        raise CorruptRegistry(_damaged(path, alias, "it holds no move"))
    if damaged := next((change for change in history if change.at >= clock.LAST), None):
        why = f"its move to v{damaged.version} is dated {damaged.at:%Y-%m-%d}, which no clock shows"
        raise CorruptRegistry(_damaged(path, alias, why))
    clock.seen(*(change.at for change in history))
    return history


def _damaged(path: Path, alias: str, why: str) -> str:
    return (
        f"{path} is not an alias history ({why}); restore it from a backup, or remove it and set the alias {alias!r} "
        "again"
    )


def names(folder: Path) -> list[str]:
    """The aliases of a model, sorted."""
    return sorted(path.stem for path in (folder / "aliases").glob("*.json") if not path.name.startswith("."))


def move(
    folder: Path,
    alias: str,
    version: int,
    *,
    by: str,
    why: str,
    expect: int | None | Anywhere = ANYWHERE,
    rollback_id: str | None = None,
) -> AliasChange:
    """Point an alias at a version and add the move to its history; if it points there already, nothing changes.

    Raises:
        AliasConflict: `expect` (a version, or None for "not set yet") is not where the alias points now.
        CorruptRegistry: the alias's history cannot be read.
        RegistryBusy: another process holds the model's lock.
        RegistryUnwritable: the disk is full, or this user may not write there.
    """
    with of_registry(folder), locked(folder / ".lock"):
        history = read_history(folder, alias)
        current = history[-1].version if history else None
        if not isinstance(expect, Anywhere) and current != expect:
            raise AliasConflict(moved_meanwhile(f"{folder.name}: alias {alias!r}", current, expect, version))
        if current == version:
            return history[-1]
        change = AliasChange(
            alias=alias,
            version=version,
            previous=current,
            at=clock.now(),
            by=by,
            why=why,
            rollback_id=rollback_id,
        )
        # The whole history is one file, so that the pointer and the record of its move can never disagree.
        replace_atomically(_path(folder, alias), _HISTORY.dump_json([*history, change], indent=2))
        return change


def _path(folder: Path, alias: str) -> Path:
    return folder / "aliases" / f"{alias}.json"


def moved_meanwhile(alias: str, current: int | None, expected: int | None, version: int) -> str:
    """The message of an AliasConflict."""
    found, wanted = ("not set" if each is None else f"v{each}" for each in (current, expected))
    return (
        f"{alias} is {found}, but {wanted} was expected: somebody moved it. Nothing was changed; check its history and "
        f"decide again whether it should be v{version}."
    )
