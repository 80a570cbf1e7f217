"""A warehouse's file that is written again with small blocks, which wide rows need."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.errors import MemoryLimitError, StorageError
from pip_dagster.ledger.covered import last_covered
from pip_dagster.ledger.rewrite import rewrite
from pip_dagster.warehouse import blocks
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.rewrite_file import rewrite_file
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

# Bytes of a file that is written again without being asked: about a second.
_AT_ONCE = 64 * 2**20


def fit_blocks(project: Project, columns: int, *, actor: str) -> bool:
    """Have a warehouse that is small still store rows of so many columns with little memory; a new one does anyway.

    A larger file stays as it is. So does one whose audit is anchored, since somebody with the key must vouch for what
    is written again, and one for which there is no memory or no space: the run then fails by itself, or does not.
    Returns whether its blocks fit; a lake has none.

    Raises:
        WarehouseError: as `rewrite_file`.
    """
    path = project.warehouse
    if not isinstance(path, Path) or blocks.fits(path, columns):
        return True
    if path.stat().st_size <= _AT_ONCE and not _is_anchored(project):
        with suppress(MemoryLimitError, StorageError):
            write_small(path, columns, actor=actor)
    return blocks.fits(path, columns)


def _is_anchored(project: Project) -> bool:
    with workspace(threads=1) as con, reading(con, project, purpose="looking at its blocks"):
        return last_covered(con) is not None


def write_small(path: Path, columns: int, *, actor: str) -> tuple[int, int, str | None]:
    """Write the file again with blocks for rows of so many columns; its bytes before and after.

    Also the id of the rewrite that the audit has of it, which an anchor must vouch for; None if nothing was anchored.

    Raises:
        WarehouseError: as `rewrite_file`.
    """
    rewrite_id = f"blocks-{clock.now():%Y%m%dT%H%M%S%f}"
    recorded = False

    def note(con: DuckDBPyConnection) -> None:
        # Row ids move with the copy: what covered them begins again.
        nonlocal recorded
        with transaction(con):
            if recorded := last_covered(con) is not None:
                rewrite(con, rewrite_id, "blocks", [], actor=actor)

    before, after = rewrite_file(path, purpose="writing smaller blocks", before=note, columns=columns)
    return before, after, rewrite_id if recorded else None
