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
from pip_dagster.sql.names import among, column_named, literal, quote
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.pending import make_pending, pending_publications
from pip_dagster.warehouse.published import publish_pending
from pip_dagster.warehouse.published_rows import attached_tables, files_of, unreadable
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
        """The subject's rows in the files."""
        if not self._project.publishes:
            return 0
        with workspace(threads=1) as con:
            return sum(_rows_in(con, self._project.published / name, name, request) for name in request.columns)

    def remove(self, request: ErasureRequest) -> Removed:
        """Rewrite whole every file that has a partition whose rows, or whose ledger, were changed."""
        if not self._project.publishes:
            return Removed(0, 0, 0, "nothing is published")
        with opened(self._project) as con:
            damaged = any(unreadable(con, self._project.published / name) for name in request.columns)
            before = 0 if damaged else self.count(request)
            with transaction(con):
                for pipeline, keys in _changed(con, request).items():
                    make_pending(con, pipeline, sorted(keys))
            count = publish_pending(con, self._project, everything=damaged, whole=True)
        method = f"{plural(count, 'partition')} published again, in files that were rewritten whole"
        remains = "copies that readers made"
        if aside := sorted(self._project.published.parent.glob(f"{self._project.published.name}.before-*")):
            remains += f"; {', '.join(each.name for each in aside)}, which `audit accept` moved aside: remove it"
        return Removed(before, before, 0, method, remains=remains)

    def verify(self, request: ErasureRequest) -> str:
        """Nothing is pending, and no file has the subject.

        Raises:
            ErasureError: a partition could not be published, or a file has rows of the subject.
        """
        if not self._project.publishes:
            return "nothing is published"
        with opened(self._project) as con:
            if left := len(pending_publications(con, self._project)):
                raise ErasureError(
                    f"{plural(left, 'partition')} could not be published again, so that former files are still there. "
                    "`pip-dagster publish` says why; then resume the erasure."
                )
        if left := self.count(request):
            raise ErasureError(
                f"The files in {self._project.published} still have {plural(left, 'row')} of erasure "
                f"{request.erasure_id}. Run `pip-dagster publish`, which writes all of them again, and resume the "
                "erasure."
            )
        return "files with changed partitions were rewritten, none is pending; no file has the subject in its column"


def _changed(con: DuckDBPyConnection, request: ErasureRequest) -> dict[str, set[str]]:
    """Pipeline → partitions that lost rows, or whose scorings were rewritten."""
    found = {pipeline: {*keys} for pipeline, keys in request.partitions.items()}
    rewritten = (
        "SELECT DISTINCT pipeline, partition_key FROM ledger.scorings WHERE scoring_id IN (SELECT scoring_id FROM "
        f"ledger.rewrites WHERE starts_with(rewrite_id, {literal(f'{request.erasure_id}/')}))"
    )
    for pipeline, key in con.execute(rewritten).fetchall():
        found.setdefault(pipeline, set()).add(key)
    return found


def _rows_in(con: DuckDBPyConnection, folder: Path, pipeline: str, request: ErasureRequest) -> int:
    """Rows of the subject in the published files of a pipeline."""
    count = 0
    for file in files_of(folder):  # one after the other: there may be many
        with attached_tables(con, [file]) as tables:
            for (schema, _), selects in tables.items():
                for select in selects if schema == pipeline else ():
                    columns = [row[0] for row in con.execute(f"DESCRIBE {select}").fetchall()]
                    if column := column_named(columns, request.columns[pipeline]):
                        of = among(f"{quote(column)}::VARCHAR", request.subjects.get(pipeline, ()))
                        row = con.execute(f"SELECT count(*) FROM ({select}) WHERE {of}").fetchone()
                        count += int(row[0]) if row else 0
    return count
