"""Files that deleted rows are still in: the warehouse's own, and those of published rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.erasure.opened import opened
from pip_dagster.erasure.place import ErasureRequest, Removed
from pip_dagster.errors import ErasureError
from pip_dagster.ledger.rewrite import rewrite
from pip_dagster.plural import plural
from pip_dagster.warehouse.pending import pending_publications
from pip_dagster.warehouse.published import publish_pending
from pip_dagster.warehouse.rewrite_file import rewrite_file
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project


class FilePlace:
    """The warehouse's file: free blocks of it keep what was deleted."""

    name = "warehouse file"

    def __init__(self, project: Project, actor: str) -> None:
        self._project, self._actor = project, actor

    def count(self, request: ErasureRequest) -> int:
        """Nothing: free blocks have no rows that could be counted."""
        return 0

    def remove(self, request: ErasureRequest) -> Removed:
        """Copy what is there into a new file, which replaces the old one and its WAL."""
        path = self._project.warehouse
        if not isinstance(path, Path):
            return Removed(0, 0, 0, "the warehouse is a lake")

        def note(con: DuckDBPyConnection) -> None:
            # Row ids move with the copy: what covered them begins again.
            with transaction(con):
                moved = f"{request.erasure_id}/file/{clock.now():%Y%m%dT%H%M%S%f}"
                rewrite(con, moved, "purge" if request.kind == "purge" else "erasure", [], actor=self._actor)

        before, after = rewrite_file(path, purpose="erasing", before=note)
        remains = "backups of the file; processes that had the old file open; blocks of the disk until overwritten"
        return Removed(0, 0, 0, f"rewritten: {before:,} bytes before, {after:,} after", remains=remains)

    def verify(self, request: ErasureRequest) -> str:
        """Nothing of the old file is beside the new one.

        Raises:
            ErasureError: it is.
        """
        path = self._project.warehouse
        if isinstance(path, Path) and (left := path.with_name(path.name + ".rewritten")).exists():
            raise ErasureError(f"{left} is there: the warehouse was not copied to its end. Resume the erasure.")
        return "a new file, written and synchronized, in place of the old one and its WAL"


class PublishedPlace:
    """The files of published rows."""

    name = "published"

    def __init__(self, project: Project) -> None:
        self._project = project

    def count(self, request: ErasureRequest) -> int:
        """Nothing: all files are written again."""
        return 0

    def remove(self, request: ErasureRequest) -> Removed:
        """Write every published file again from the warehouse, and remove the former ones; for a purge, the pending."""
        if not self._project.publishes:
            return Removed(0, 0, 0, "nothing is published")
        with opened(self._project) as con:
            count = publish_pending(con, self._project, everything=request.kind == "erase")
        remains = "copies that readers made"
        if aside := sorted(self._project.published.parent.glob(f"{self._project.published.name}.before-*")):
            remains += f"; {', '.join(each.name for each in aside)}, which `audit accept` moved aside: remove it"
        return Removed(0, 0, 0, f"{plural(count, 'partition')} written again", remains=remains)

    def verify(self, request: ErasureRequest) -> str:
        """Nothing is pending.

        Raises:
            ErasureError: a partition could not be published.
        """
        if not self._project.publishes:
            return "nothing is published"
        with opened(self._project) as con:
            if left := len(pending_publications(con, self._project)):
                raise ErasureError(
                    f"{plural(left, 'partition')} could not be published again, so that former files are still there. "
                    "`pip-dagster publish` says why; then resume the erasure."
                )
        what = "the purged partitions were" if request.kind == "purge" else "every published file was"
        return f"{what} written again from the warehouse; none is pending"
