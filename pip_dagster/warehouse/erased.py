"""Erasures and holds as they are known beside the warehouse: a backup from before one does not know it.

The folder `<warehouse>.erasures`, of a lake `data/erasures`, has `<id>.request.json` for each erasure that began, and
its certificate `<id>.json` once it is done; `<id>.hold.json` for each legal hold that is on. Who opens the warehouse
for writing compares the names of these files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.errors import RestoredWarehouseError, StorageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

REQUEST, CERTIFICATE, HOLD = ".request.json", ".json", ".hold.json"
_SHOWN = 3
_repeating = False  # threads of this process take part


def folder(project: Project) -> Path:
    """Where they are."""
    if isinstance(project.warehouse, Path):
        return Path(f"{project.warehouse}.erasures")
    return project.root / "data" / "erasures"


def request_file(project: Project, erasure_id: str) -> Path:
    """Where an erasure is known by keyed hashes."""
    return folder(project) / f"{erasure_id}{REQUEST}"


def certificate_file(project: Project, erasure_id: str) -> Path:
    """Where its certificate is."""
    return folder(project) / f"{erasure_id}{CERTIFICATE}"


def hold_file(project: Project, hold_id: str) -> Path:
    """Where a legal hold is known by keyed hashes, while it is on."""
    return folder(project) / f"{hold_id}{HOLD}"


def noted(project: Project) -> dict[str, bool]:
    """The erasures that the folder has, and whether it has their certificate; empty where there is no folder.

    Raises:
        StorageError: it cannot be read.
    """
    names = _names(project)
    return {each: each + CERTIFICATE in names for each in _ids(names, REQUEST)}


def _ids(names: set[str], suffix: str) -> list[str]:
    return sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix))


def _names(project: Project) -> set[str]:
    place = folder(project)
    try:
        return {path.name for path in place.iterdir()}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise StorageError(
            f"{place}, the folder of erasures, cannot be read: {error.strerror}. Without it nobody knows whether the "
            "warehouse is a backup that brings erased people back. Make it readable."
        ) from error


def missing(con: DuckDBPyConnection, project: Project) -> list[str]:
    """The erasures that the warehouse, which is the current catalog, does not know, or not as done.

    Raises:
        StorageError: the folder cannot be read.
    """
    found = noted(project)
    if not found:
        return []
    states = states_of(con)
    return [each for each, done in found.items() if each not in states or (done and states[each] != "done")]


def missing_holds(con: DuckDBPyConnection, project: Project) -> list[str]:
    """The legal holds that the warehouse, which is the current catalog, does not know.

    Raises:
        StorageError: the folder cannot be read.
    """
    found = _ids(_names(project), HOLD)
    if not found:
        return []
    known = {each for (each,) in con.execute("SELECT erasure_id FROM ledger.erasures WHERE kind = 'hold'").fetchall()}
    return [each for each in found if each not in known]


def states_of(con: DuckDBPyConnection) -> dict[str, str]:
    """Erasure → its state. The warehouse is the current catalog."""
    select = "SELECT erasure_id, arg_max(state, made_at) FROM ledger.erasures WHERE kind = 'erase' GROUP BY 1"
    return dict(con.execute(select).fetchall())


def check(con: DuckDBPyConnection, project: Project) -> None:
    """Refuse a warehouse from a backup of before an erasure or a legal hold.

    Raises:
        RestoredWarehouseError: it is; names the erasures and holds.
        StorageError: the folder cannot be read.
    """
    if not _repeating and (why := refusal(con, project)):
        raise RestoredWarehouseError(why)


def refusal(con: DuckDBPyConnection, project: Project) -> str | None:
    """What is wrong with the warehouse, which is the current catalog, and what to do; None where nothing is.

    Raises:
        StorageError: the folder cannot be read.
    """
    lacking, holds = missing(con, project), missing_holds(con, project)
    if not (lacking or holds):
        return None
    parts = [f"the {what} {_listed(of)}" for what, of in (("erasure", lacking), ("legal hold", holds)) if of]
    may = "it may hold people who were erased" if lacking else "a purge would remove what must be kept"
    return (
        f"The warehouse {project.warehouse} is from a backup that does not know {' and '.join(parts)}, which "
        f"{folder(project)} has: {may}. Nothing was run or published. `pip-dagster erase --again` places the holds and "
        "erases the people again."
    )


def _listed(ids: list[str]) -> str:
    return ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")


@contextmanager
def repeating() -> Iterator[None]:
    """Inside, the warehouse is not refused: they are being erased again."""
    global _repeating
    before, _repeating = _repeating, True
    try:
        yield
    finally:
        _repeating = before
