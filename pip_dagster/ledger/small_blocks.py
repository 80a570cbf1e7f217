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
from pip_dagster.warehouse.rewrite_file import rewrite_file
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

# Bytes of a file that is written again without being asked: about a second.
_AT_ONCE = 64 * 2**20


def fit_blocks(project: Project, columns: int, *, actor: str) -> bool:
    """Have a warehouse that is small still store rows of so many columns with little memory; a new one does anyway.

    A larger file stays as it is. So does one for which there is no memory or no space: the run then fails by itself, or
    does not. Returns whether its blocks fit; a lake has none.

    Raises:
        WarehouseError: as `rewrite_file`.
    """
    path = project.warehouse
    if not isinstance(path, Path) or blocks.fits(path, columns):
        return True
    if path.stat().st_size <= _AT_ONCE:
        with suppress(MemoryLimitError, StorageError):
            write_small(path, columns, actor=actor)
    return blocks.fits(path, columns)


def write_small(path: Path, columns: int, *, actor: str) -> tuple[int, int]:
    """Write the file again with blocks for rows of so many columns; its bytes before and after.

    Raises:
        WarehouseError: as `rewrite_file`.
    """

    def note(con: DuckDBPyConnection) -> None:
        # Row ids move with the copy: what covered them begins again.
        with transaction(con):
            if last_covered(con):
                rewrite(con, f"blocks/{clock.now():%Y%m%dT%H%M%S%f}", "blocks", [], actor=actor)

    return rewrite_file(path, purpose="writing smaller blocks", before=note, columns=columns)
