"""Contents that are past their clock: all rows of the partitions, in all tables; what they were is kept as evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.erasure.held import RELEASED, held_requests
from pip_dagster.erasure.opened import opened
from pip_dagster.erasure.place import ErasureRequest, Removed
from pip_dagster.erasure.recount import forget_values, note_lost
from pip_dagster.erasure.rows import WarehousePlace
from pip_dagster.erasure.tables import number_of
from pip_dagster.errors import ErasureError
from pip_dagster.evidence.contents import IDS, columns_of_tables
from pip_dagster.ledger.rewrite import rewrite
from pip_dagster.plural import plural
from pip_dagster.sql.names import among, literal, quote
from pip_dagster.warehouse import kinds
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project

_DUE = "pip_due"
_METHOD = "all rows of the partitions deleted; digests, scores' figures, histograms and checks' values removed"
_REMAINS = (
    "evidence: extractions, scorings, numbers of rows, versions, outcomes of checks, the audit; figures of "
    "performance, estimates and drift; digests of stretches of the sources; models that were trained on the rows"
)
# The ids of what is past the clock: a revision of features, or a scoring.
_OF_PIPELINE = """
  SELECT DISTINCT pipeline, partition_key, partition_start, {id} AS id, {is_revision} AS is_revision
  FROM ledger.{table}
  WHERE pipeline = {pipeline} AND partition_end <= {before} AND purged_at IS NULL
"""


def due_sql(before: Mapping[str, datetime]) -> str:
    """SQL of what is past the clock of its pipeline and not purged."""
    selects = [
        _OF_PIPELINE.format(
            id=id_,
            is_revision=table == "extractions",
            table=table,
            pipeline=literal(pipeline),
            before=f"{literal(at.isoformat())}::TIMESTAMPTZ",
        )
        for pipeline, at in before.items()
        for table, id_ in (("extractions", "revision"), ("scorings", "scoring_id"))
    ]
    return " UNION ALL ".join(selects)


class ContentsPlace:
    """All tables of the warehouse, in one transaction."""

    name = "warehouse"

    def __init__(
        self, project: Project, pipelines: Sequence[Pipeline], before: Mapping[str, datetime], actor: str
    ) -> None:
        """`before`: pipeline → contents of partitions that ended by then are purged."""
        self._project, self._pipelines, self._before, self._actor = project, pipelines, before, actor

    def count(self, request: ErasureRequest) -> int:
        """Rows that are left of what was purged."""
        of_id = f"purged_by = {literal(request.erasure_id)}"
        with opened(self._project) as con:
            purged = (
                f"SELECT revision AS id, pipeline FROM ledger.extractions WHERE {of_id} "
                f"UNION SELECT scoring_id, pipeline FROM ledger.scorings WHERE {of_id}"
            )
            con.execute(f"CREATE OR REPLACE TEMP TABLE {_DUE} AS {purged}")
            return sum(number_of(con, table.rows) for table in _tables(con, {*self._before}))

    def remove(self, request: ErasureRequest) -> Removed:
        """Delete the rows, and what shows them, in one transaction."""
        with opened(self._project) as con, transaction(con):
            con.execute(f"CREATE OR REPLACE TEMP TABLE {_DUE} AS {due_sql(self._before)}")
            con.execute(
                f"CREATE OR REPLACE TEMP TABLE {_DUE}_lost (pipeline VARCHAR, partition_key VARCHAR, "
                "scoring_id VARCHAR, revision VARCHAR, rows BIGINT)"
            )
            kept = sum(self._keep(con, request, pipeline) for pipeline in self._pipelines)
            released = f"ledger.held_rows WHERE {_released(self._before)}"
            gone = number_of(con, released)
            con.execute(f"DELETE FROM {released}")
            tables = [*_tables(con, {*self._before})]
            before = gone + sum(number_of(con, table.sql) for table in tables)
            for table in tables:
                of, other = ("revision", "scoring_id") if table.id == "revision" else ("scoring_id", "revision")
                con.execute(
                    f"INSERT INTO {_DUE}_lost BY NAME SELECT {literal(table.pipeline)} AS pipeline, partition_key, "
                    f"{table.id} AS {of}, NULL AS {other}, count(*) AS rows FROM {table.rows} GROUP BY ALL"
                )
                con.execute(f"DELETE FROM {table.rows}")
            now = clock.now()
            given = {"id": request.erasure_id, "now": now}
            lost = con.execute(
                "SELECT d.pipeline, d.partition_key, CASE WHEN NOT is_revision THEN d.id END, "
                "CASE WHEN is_revision THEN d.id END, coalesce(sum(l.rows), 0)::BIGINT "
                f"FROM {_DUE} d LEFT JOIN {_DUE}_lost l ON l.pipeline = d.pipeline AND "
                "d.id = CASE WHEN is_revision THEN l.revision ELSE l.scoring_id END GROUP BY ALL"
            ).fetchall()
            note_lost(con, request.erasure_id, {(pipeline, key, *ids): rows for pipeline, key, *ids, rows in lost})
            scorings = [
                row[0] for row in con.execute(f"SELECT id FROM {_DUE} WHERE NOT is_revision ORDER BY 1").fetchall()
            ]
            _forget(con, given)
            rewrite(con, f"{request.erasure_id}/{now:%Y%m%dT%H%M%S%f}", "purge", scorings, actor=self._actor)
            removed = gone + sum(row[-1] for row in lost)
        held = f"{plural(kept, 'row')} of subjects on legal hold, in ledger.held_rows until it is released; "
        return Removed(before, removed, before - removed, _METHOD, remains=held * bool(kept) + _REMAINS)

    def _keep(self, con: DuckDBPyConnection, request: ErasureRequest, pipeline: Pipeline) -> int:
        """Copy the rows of subjects on hold to those that are kept; how many."""
        place = WarehousePlace(self._project, {pipeline.spec.name: pipeline.spec.features.key}, self._actor)
        return sum(
            place.keep(con, of_hold, hold_id, f"{{id}} IN (SELECT id FROM {_DUE})")
            for hold_id, of_hold in held_requests(con, [pipeline], request)
        )

    def verify(self, request: ErasureRequest) -> str:
        """Count again.

        Raises:
            ErasureError: rows are there.
        """
        if left := self.count(request):
            raise ErasureError(
                f"{plural(left, 'row')} of what {request.erasure_id} purged are in the warehouse. Purge again."
            )
        return "a query of every table found no row of these scorings and revisions"


@dataclass(frozen=True)
class _Contents:
    """A table of contents, and the column of its ids."""

    pipeline: str
    name: str
    id: str

    @property
    def sql(self) -> str:
        return f"{quote(self.pipeline)}.{quote(self.name)}"

    @property
    def rows(self) -> str:
        """Those of it that are due."""
        return f"{self.sql} WHERE {self.id} IN (SELECT id FROM {_DUE} WHERE pipeline = {literal(self.pipeline)})"


def _tables(con: DuckDBPyConnection, pipelines: set[str]) -> Iterator[_Contents]:
    names = {kind.name for kind in kinds.with_column_sets()}
    for pipeline, table in columns_of_tables(con, pipelines):
        kind = table.partition("__")[0]
        if kind in names:
            yield _Contents(pipeline, table, IDS.get(kind, "scoring_id"))


def _released(pipelines: Iterable[str]) -> str:
    return f"{among('pipeline', sorted(pipelines))} AND {RELEASED}"


def released_sql(pipelines: Iterable[str]) -> str:
    """SQL of the partitions of rows that were kept for a hold which is released."""
    return f"SELECT pipeline, partition_key FROM ledger.held_rows WHERE {_released(pipelines)}"


def _forget(con: DuckDBPyConnection, given: Mapping[str, object]) -> None:
    """Mark what is purged, and remove what the ledger has of values; the partitions are published again."""
    mark = "purged_by = $id, purged_at = $now, feature_digest = NULL, source_digests = '{}'"
    due = f"(SELECT pipeline, id FROM {_DUE} WHERE is_revision = {{}})"
    con.execute(f"UPDATE ledger.extractions SET {mark} WHERE (pipeline, revision) IN {due.format(True)}", given)
    con.execute(
        f"UPDATE ledger.scorings SET {mark}, score_digest = NULL, inputs_digest = NULL, mean_score = NULL, "
        f"min_score = NULL, max_score = NULL WHERE (pipeline, scoring_id) IN {due.format(False)}",
        given,
    )
    of = f"(pipeline, partition_key) IN (SELECT pipeline, partition_key FROM {_DUE})"
    forget_values(con, of)
    con.execute(f"DELETE FROM ledger.profiles WHERE {of}")
    ids = " UNION ALL ".join(
        f"SELECT {kind.pending_id} FROM {kind.in_sql('')} WHERE {of}" for kind in kinds.announcing()
    )
    con.execute(f"DELETE FROM ledger.publications WHERE change_id IN ({ids})")
