"""Erasures as they are known beside the warehouse: a backup from before one brings people back, and does not know it.

The folder `<warehouse>.erasures`, of a lake `data/erasures`, has `<id>.request.json` for each erasure that began, and
its certificate `<id>.json` once it is done. Who opens the warehouse for writing compares the names of these files.
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

REQUEST, CERTIFICATE = ".request.json", ".json"
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


def noted(project: Project) -> dict[str, bool]:
    """The erasures that the folder has, and whether it has their certificate; empty where there is no folder.

    Raises:
        StorageError: it cannot be read.
    """
    place = folder(project)
    try:
        names = {path.name for path in place.iterdir()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageError(
            f"{place}, the folder of erasures, cannot be read: {error.strerror}. Without it nobody knows whether the "
            "warehouse is a backup that brings erased people back. Make it readable."
        ) from error
    ids = sorted(name.removesuffix(REQUEST) for name in names if name.endswith(REQUEST))
    return {each: each + CERTIFICATE in names for each in ids}


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


def states_of(con: DuckDBPyConnection) -> dict[str, str]:
    """Erasure → its state. The warehouse is the current catalog."""
    select = "SELECT erasure_id, arg_max(state, made_at) FROM ledger.erasures WHERE kind = 'erase' GROUP BY 1"
    return dict(con.execute(select).fetchall())


def check(con: DuckDBPyConnection, project: Project) -> None:
    """Refuse a warehouse from a backup of before an erasure.

    Raises:
        RestoredWarehouseError: it is; names the erasures.
        StorageError: the folder cannot be read.
    """
    if not _repeating and (lacking := missing(con, project)):
        raise RestoredWarehouseError(refusal(project, lacking))


def refusal(project: Project, lacking: list[str]) -> str:
    """What is wrong, and what to do."""
    more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
    return (
        f"The warehouse {project.warehouse} is from a backup that does not know the erasure "
        f"{', '.join(lacking[:_SHOWN])}{more}, which {folder(project)} has: it may hold people who were erased. "
        "Nothing was run or published. `pip-dagster erase --again` erases them again."
    )


@contextmanager
def repeating() -> Iterator[None]:
    """Inside, the warehouse is not refused: they are being erased again."""
    global _repeating
    before, _repeating = _repeating, True
    try:
        yield
    finally:
        _repeating = before
