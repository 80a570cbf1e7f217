"""The warehouse's tables: rows of a subject, and what the ledger knows of them by values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.erasure.held import hold_on, kept_text, only, released
from pip_dagster.erasure.opened import opened
from pip_dagster.erasure.place import ErasureRequest, Removed
from pip_dagster.erasure.recount import REVISIONS, forget, measure
from pip_dagster.erasure.sources import SourcesNow, forget_sources, has_subject, read_sources
from pip_dagster.erasure.tables import ERASED, SubjectTable, number_of, of_nobody, row_key, tables_of
from pip_dagster.errors import ErasureError
from pip_dagster.evidence.contents import IDS
from pip_dagster.ledger.rewrite import rewrite
from pip_dagster.plural import plural
from pip_dagster.sql.names import column_named, literal
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project

_METHOD = "rows deleted; digests, numbers of rows and nonces of their scorings replaced; figures of them removed"
_REMAINS = (
    "digests of sources that have no column of the subject, until their partitions are built again; models that were "
    "trained on the rows; aggregates over more than one partition"
)


class WarehousePlace:
    """All tables of the warehouse, in one transaction."""

    name = "warehouse"

    def __init__(
        self,
        project: Project,
        keys: Mapping[str, Sequence[str]],
        actor: str,
        *,
        pipelines: Sequence[Pipeline] = (),
        progress: Callable[[str], object] = lambda text: None,
    ) -> None:
        """`keys`: pipeline → the key columns of its rows; `pipelines`: whose sources the ledger has records of."""
        self._project, self._keys, self._actor = project, keys, actor
        self._pipelines, self._progress = pipelines, progress

    def count(self, request: ErasureRequest) -> int:
        """Rows in all tables."""
        with opened(self._project) as con:
            kept = sum(number_of(con, f"ledger.held_rows WHERE {where}") for where in released(request))
            return kept + sum(self._counted(con, request).values())

    def partitions(self, request: ErasureRequest) -> dict[str, dict[str, int]]:
        """Pipeline → partition → its rows of features, scores, quarantine and reasons."""
        found: dict[str, dict[str, int]] = {}
        with opened(self._project) as con:
            for (pipeline, key), rows in self._counted(con, request).items():
                found.setdefault(pipeline, {})[key] = rows
        return found

    def remove(self, request: ErasureRequest) -> Removed:
        """Delete the rows, and what shows them, in one transaction."""
        with workspace(threads=2) as con, self._reading_sources(con, request) as sources, transaction(con):
            held = [(name, *on) for name, of in request.tokens.items() if (on := hold_on(con, name, of))]
            kept = sum(self.keep(con, only(request, name), hold_id) for name, hold_id, _ in held)
            gone = 0
            for of_holds in released(request):
                gone += number_of(con, f"ledger.held_rows WHERE {of_holds}")
                con.execute(f"DELETE FROM ledger.held_rows WHERE {of_holds}")
            tables = [*tables_of(con, request)]
            before = sum(number_of(con, table.sql) for table in tables)
            of_partition = self._deleted(con, request, tables)
            of_revisions = (
                f"SELECT s.scoring_id FROM ledger.scorings s JOIN {REVISIONS} r ON r.pipeline = s.pipeline "
                "AND r.id = s.feature_revision"
            )
            lost = {row[0] for row in con.execute(of_revisions).fetchall()}
            lost |= {scoring_id for _, _, scoring_id, _ in of_partition if scoring_id}
            concerned = {pipeline for pipeline, *_ in of_partition} | {*request.partitions}
            for now in sources:
                if now.name in concerned or has_subject(con, now):
                    lost.update(forget_sources(con, now))
            scorings = sorted(lost)
            for table in tables:
                measure(con, table, scorings)
            forget(con, request, scorings, of_partition)
            rewrite_id = f"{request.erasure_id}/{clock.now():%Y%m%dT%H%M%S%f}"
            rewrite(con, rewrite_id, "erasure", scorings, actor=self._actor)
            remains, until = kept_text(kept, held)
            remains += _REMAINS + of_nobody(tables, request)
            removed = sum(of_partition.values())
            return Removed(before + gone, removed + gone, before - removed, _METHOD, remains, until)

    def _deleted(
        self, con: DuckDBPyConnection, request: ErasureRequest, tables: Sequence[SubjectTable]
    ) -> dict[tuple[str, str, str | None, str | None], int]:
        """Delete the rows: pipeline, partition, scoring or revision → how many. Revisions are in `REVISIONS` too."""
        self._find_keys(con, request, tables)
        con.execute(f"CREATE OR REPLACE TEMP TABLE {REVISIONS} (pipeline VARCHAR, id VARCHAR)")
        found = dict[tuple[str, str, str | None, str | None], int]()
        for table in tables:
            where = table.where(request, self._keys)
            if where is None:
                continue
            id_ = IDS.get(table.kind, "scoring_id")
            rows = con.execute(
                f"SELECT partition_key, {id_}, count(*) FROM {table.sql} WHERE {where} GROUP BY ALL"
            ).fetchall()
            for key, of, number in rows:
                ids = (None, of) if table.kind == "features" else (of, None)
                at = (table.pipeline, key, *ids)
                found[at] = found.get(at, 0) + number
                if table.kind == "features":
                    con.execute(f"INSERT INTO {REVISIONS} VALUES ({literal(table.pipeline)}, {literal(of)})")
            con.execute(f"DELETE FROM {table.sql} WHERE {where}")
        return found

    def keep(self, con: DuckDBPyConnection, request: ErasureRequest, hold_id: str, within: str = "true") -> int:
        """Copy the subject's rows to those that are kept for a hold; how many. Call it before they are deleted.

        `within`: a further condition of the rows, with `{id}` for the column of its scoring or revision.
        """
        kept, tables = 0, [*tables_of(con, request)]
        self._find_keys(con, request, tables)
        given = {"hold": hold_id, "erasure": request.erasure_id, "now": clock.now()}
        for table in tables:
            if where := table.where(request, self._keys):
                rows = f"{table.sql} t WHERE ({where}) AND {within.format(id=IDS.get(table.kind, 'scoring_id'))}"
                kept += number_of(con, rows)
                con.execute(
                    "INSERT INTO ledger.held_rows SELECT $hold, $erasure, "
                    f"{literal(table.pipeline)}, partition_key, {literal(table.name)}, to_json(t)::VARCHAR, $now "
                    f"FROM {rows}",
                    given,
                )
        return kept

    @contextmanager
    def _reading_sources(self, con: DuckDBPyConnection, request: ErasureRequest) -> Iterator[list[SourcesNow]]:
        """The sources, read before the warehouse is opened for writing."""
        sources = [
            read_sources(con, each, number, request.erasure_id, request.subjects[each.spec.name])
            for number, each in enumerate(self._pipelines)
        ]
        for now in sources:
            if now.why_not:
                stale = f"the ledger forgets what it had of its sources, and its partitions become stale. {now.why_not}"
                self._progress(f"Pipeline {now.name}: {stale}")
        with writing(con, self._project, purpose="erasing", publish=False):
            yield sources

    def verify(self, request: ErasureRequest) -> str:
        """Count again.

        Raises:
            ErasureError: rows are there.
        """
        if left := self.count(request):
            raise ErasureError(
                f"{plural(left, 'row')} of erasure {request.erasure_id} came into the warehouse since: a run that had "
                "begun before stored them. Resume the erasure."
            )
        return "a query of every table found none"

    def _counted(self, con: DuckDBPyConnection, request: ErasureRequest) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        tables = [*tables_of(con, request)]
        self._find_keys(con, request, tables)
        for table in tables:
            if (where := table.where(request, self._keys)) is None:
                continue
            rows = con.execute(f"SELECT partition_key, count(*) FROM {table.sql} WHERE {where} GROUP BY 1").fetchall()
            for key, number in rows:
                found[table.pipeline, key] = found.get((table.pipeline, key), 0) + number
        return found

    def _find_keys(self, con: DuckDBPyConnection, request: ErasureRequest, tables: Sequence[SubjectTable]) -> None:
        """The rows that were scored from the subject's features: other tables may have no column of the subject.

        By scoring: the same key may be another person's in another pipeline, or in a corrected revision.
        """
        con.execute(f"CREATE OR REPLACE TEMP TABLE {ERASED} (scoring_id VARCHAR, row_key VARCHAR)")
        for table in tables:
            named = [column_named(table.columns, name) for name in self._keys.get(table.pipeline, ())]
            if table.kind == "features" and all(named):
                where = table.where(request, self._keys)
                if where:
                    con.execute(
                        f"INSERT INTO {ERASED} SELECT s.scoring_id, f.row_key FROM ledger.scorings s JOIN (SELECT "
                        f"DISTINCT partition_key, revision, {row_key(named)} AS row_key FROM {table.sql} WHERE "
                        f"{where}) f ON f.partition_key = s.partition_key AND f.revision = s.feature_revision "
                        f"WHERE s.pipeline = {literal(table.pipeline)}"
                    )
