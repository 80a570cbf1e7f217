"""The lake's files and catalog: DuckLake deletes by marking, so what was deleted is still in both.

What it takes was tried on DuckLake of DuckDB 1.5.5 with a catalog in Postgres; docs/erasure-places.md has what remained
after each step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.lake import Lake
from pip_dagster.erasure.opened import opened
from pip_dagster.erasure.place import ErasureRequest, Removed
from pip_dagster.errors import ErasureError
from pip_dagster.plural import plural
from pip_dagster.sql.names import CATALOG, column_named, literal, quote
from pip_dagster.warehouse import advisory, lock
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.lake_connection import catalog
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

_METHOD = (
    "inlined rows flushed, files with deletions rewritten, snapshots expired, files removed, orphaned files removed, "
    "the catalog's tables rewritten (VACUUM FULL)"
)
_REMAINS = (
    "Postgres' log of writes and its archive, standby servers and backups of the catalog and of the files; versions "
    "that the object store keeps"
)
_TABLES = """
SELECT s.schema_name, t.table_name,
       CASE WHEN s.path_is_relative THEN s.path ELSE '/' || s.path END AS of_schema,
       CASE WHEN t.path_is_relative THEN t.path ELSE '/' || t.path END AS of_table
FROM ducklake_table t JOIN ducklake_schema s USING (schema_id)
WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL
"""


class LakePlace:
    """What the deletions in the warehouse's tables have left of a subject, or of partitions, in a lake."""

    name = "lake"

    def __init__(self, project: Project) -> None:
        self._project = project

    def count(self, request: ErasureRequest) -> int:
        """Rows that are still in Parquet files."""
        if not isinstance(self._project.warehouse, Lake):
            return 0
        with opened(self._project) as con:
            return _rows_in_files(con, self._project.warehouse, request)

    def remove(self, request: ErasureRequest) -> Removed:
        """Rewrite what has deletions, and forget every earlier state of the lake.

        Whoever reads it meanwhile, as of an earlier moment, may lose the files that they read.

        Raises:
            ErasureError: someone keeps an old state of the catalog open.
        """
        lake = self._project.warehouse
        if not isinstance(lake, Lake):
            return Removed(0, 0, 0, "the warehouse is a file")
        with opened(self._project) as con:
            before = _rows_in_files(con, lake, request)
            for function in ("flush_inlined_data", "rewrite_data_files"):
                option = ", delete_threshold => 0" if function == "rewrite_data_files" else ""
                with transaction(con):
                    con.execute(f"CALL ducklake_{function}({literal(CATALOG)}{option})").fetchall()
            _call(con, "expire_snapshots", "older_than => now()")
            _call(con, "cleanup_old_files", "cleanup_all => true")
            # A file that a run has just written is in no snapshot yet. While no other process is connected, there is
            # no such run: what is older than this moment was left by one that was killed.
            (moment,), others = _query(con, "SELECT now()::text")[0], _others(con)
            since = f"{literal(moment)}::TIMESTAMPTZ" + (" - INTERVAL '1 day'" if others else "")
            _call(con, "delete_orphaned_files", f"older_than => {since}")
            after = _rows_in_files(con, lake, request)
        # The open lake holds locks and an old state of its catalog itself.
        with workspace(threads=1) as con, catalog(con, lake, purpose="erasing"):
            _vacuum(con)
        return Removed(before, before - after, after, _METHOD, remains=_REMAINS)

    def verify(self, request: ErasureRequest) -> str:
        """Read every file and the catalog again.

        Raises:
            ErasureError: something is left; names where.
        """
        lake = self._project.warehouse
        if not isinstance(lake, Lake):
            return "the warehouse is a file"
        with opened(self._project) as con:
            if rows := _rows_in_files(con, lake, request):
                left = f"{plural(rows, 'row')} of erasure {request.erasure_id} still in Parquet files"
                raise ErasureError(
                    f"{left} below {lake.data_path}: a run was writing meanwhile, or left a file when it was killed. "
                    "Wait for runs to end and resume."
                )
            for what, number in _left_in_catalog(con, request).items():
                if number:
                    raise ErasureError(
                        f"{number} {what} are still in the catalog of the lake {lake} after erasure "
                        f"{request.erasure_id}: it was written to meanwhile. Resume the erasure."
                    )
        return "every Parquet file of its tables, the inlined rows and the column statistics were read: no such value"


def _call(con: DuckDBPyConnection, function: str, options: str) -> None:
    con.execute(f"CALL ducklake_{function}({literal(CATALOG)}, {options})").fetchall()


def _query(con: DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return con.execute(f"SELECT * FROM postgres_query({literal(advisory.LOCKS)}, {literal(query)})").fetchall()


def _others(con: DuckDBPyConnection) -> list[str]:
    """The other processes that are connected to the catalog's database."""
    mine = f"{advisory.APPLICATION} {advisory.this_process()} "
    found = _query(con, "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()")
    return [name for (name,) in found if name.startswith(advisory.APPLICATION) and not name.startswith(mine)]


def _vacuum(con: DuckDBPyConnection) -> None:
    """Rewrite the catalog's tables once nobody can see the deleted rows any more: until then Postgres copies them."""
    until = time.monotonic() + lock.declared_deadline()
    (now,) = _query(con, "SELECT pg_current_xact_id()::text")[0]
    older = (
        "SELECT application_name || ' (process ' || pid || ')' FROM pg_stat_activity WHERE datname = "
        f"current_database() AND backend_xmin::text::bigint < {int(now) % 2**32} AND application_name NOT LIKE "
        f"'{advisory.APPLICATION} {advisory.this_process()} %'"
    )
    if found := _query(con, older):
        with lock.said_wait(lambda: f"{found[0][0]}, which keeps an old state of the lake's catalog open"):
            _wait_for(con, older, until)
    names = _query(con, "SELECT quote_ident(tablename) FROM pg_tables WHERE tablename LIKE 'ducklake\\_%'")
    for (name,) in names:
        command = literal(f"VACUUM FULL {name}")
        con.execute(f"CALL postgres_execute({literal(advisory.LOCKS)}, {command}, use_transaction => false)")


def _wait_for(con: DuckDBPyConnection, older: str, until: float) -> None:
    while found := _query(con, older):
        if time.monotonic() > until:
            raise ErasureError(
                f"{found[0][0]} keeps an old state of the lake's catalog open, in which the erased rows can be seen. "
                "End that transaction and resume the erasure."
            )
        time.sleep(0.2)


def _rows_in_files(con: DuckDBPyConnection, lake: Lake, request: ErasureRequest) -> int:
    """Rows in every Parquet file of the pipelines' tables, whether a snapshot has it or not."""
    rows = 0
    for schema, _, of_schema, of_table in _query(con, _TABLES):
        if schema not in {*request.subjects, *request.partitions}:
            continue
        parts = [lake.data_path, of_schema, of_table]
        begin = max(i for i, part in enumerate(parts) if not i or part.startswith("/"))
        files = "".join(part if part.endswith("/") else part + "/" for part in parts[begin:]) + "**/*.parquet"
        if not con.execute("SELECT 1 FROM glob($1) LIMIT 1", [files]).fetchone():
            continue
        relation = f"read_parquet({literal(files)}, union_by_name => true)"
        columns = {row[0] for row in con.execute(f"DESCRIBE FROM {relation}").fetchall()}
        for column, values in _wanted(request, schema):
            if column_named(columns, column):
                select = f"SELECT count(*) FROM {relation} WHERE {quote(column)}::VARCHAR IN (SELECT unnest($1))"
                found = con.execute(select, [[*values]]).fetchone()
                rows += int(found[0]) if found else 0
    return rows


def _wanted(request: ErasureRequest, pipeline: str) -> Iterator[tuple[str, Sequence[str]]]:
    if request.kind == "purge":
        yield "partition_key", request.partitions.get(pipeline, ())
    elif pipeline in request.columns:
        yield request.columns[pipeline], request.subjects.get(pipeline, ())


def _left_in_catalog(con: DuckDBPyConnection, request: ErasureRequest) -> dict[str, int]:
    """What the catalog still has: inlined rows of any table, files to be removed, statistics that are the subject."""

    def number(query: str) -> int:
        return int(_query(con, query)[0][0])

    inlined = _query(con, "SELECT quote_ident(table_name) FROM ducklake_inlined_data_tables")
    values = sorted({value for listed in request.subjects.values() for value in listed})
    among = ", ".join(literal(value) for value in values) or "NULL"
    where = f"min_value IN ({among}) OR max_value IN ({among})"
    return {
        "inlined deletions": sum(
            number(f"SELECT count(*) FROM {name} WHERE end_snapshot IS NOT NULL") for (name,) in inlined
        ),
        "files to be removed": number("SELECT count(*) FROM ducklake_files_scheduled_for_deletion"),
        "column statistics": number(f"SELECT count(*) FROM ducklake_file_column_stats WHERE {where}")
        + number(f"SELECT count(*) FROM ducklake_table_column_stats WHERE {where}"),
    }
