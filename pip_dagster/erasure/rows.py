"""The warehouse's tables: rows of a subject, and what the ledger knows of them by values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.erasure.holds import hold_on, kept_text, only, released
from pip_dagster.erasure.opened import opened
from pip_dagster.erasure.place import ErasureRequest, Removed
from pip_dagster.erasure.sources import SourcesNow, forget_sources, has_subject, read_sources
from pip_dagster.errors import ErasureError
from pip_dagster.evidence.contents import IDS, columns_of_tables, covered_columns
from pip_dagster.ledger.rewrite import rewrite
from pip_dagster.ledger.rows import insert_many
from pip_dagster.plural import plural
from pip_dagster.sql.names import among, column_named, literal, quote
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.digest import digest_sql, row_set_sql
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project

KINDS = ("features", "scores", "quarantine", "reasons")
# Figures of scorings that lost rows. What is monitored computes them again.
_FIGURES = ("profiles", "evaluations", "performance", "judgements", "drift", "estimates")
_ERASED, _REVISIONS = "pip_erased_rows", "pip_erased_revisions"
_METHOD = "rows deleted; digests, numbers of rows and nonces of their scorings replaced; figures of them removed"
_REMAINS = (
    "digests of sources that have no column of the subject, until their partitions are built again; models that were "
    "trained on the rows; aggregates over more than one partition"
)


@dataclass(frozen=True)
class _Table:
    """A table of a pipeline: its kind, and its columns with their types."""

    pipeline: str
    name: str
    columns: Mapping[str, str]

    @property
    def kind(self) -> str:
        return self.name.partition("__")[0]

    @property
    def sql(self) -> str:
        return f"{quote(self.pipeline)}.{quote(self.name)}"

    def where(self, request: ErasureRequest, keys: Mapping[str, Sequence[str]]) -> str | None:
        """The condition that a row is to be erased; None where it has no column that tells."""
        found = []
        column = column_named(self.columns, request.columns[self.pipeline])
        if column:
            found.append(f"{quote(column)}::VARCHAR IN ({_listed(request.subjects[self.pipeline])})")
        named = [column_named(self.columns, name) for name in keys[self.pipeline]]
        if self.kind != "features" and all(named):
            row = _row_key(named)
            found.append(f"(scoring_id, {row}) IN (SELECT scoring_id, row_key FROM {_ERASED})")
        return " OR ".join(found) or None


@dataclass(frozen=True)
class _LossEntry:
    """One row of `ledger.erased_partitions`."""

    erasure_id: str
    pipeline: str
    partition_key: str
    scoring_id: str | None
    feature_revision: str | None
    rows_removed: int
    made_at: datetime


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
            kept = sum(_number(con, f"ledger.held_rows WHERE {where}") for where in released(request))
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
                gone += _number(con, f"ledger.held_rows WHERE {of_holds}")
                con.execute(f"DELETE FROM ledger.held_rows WHERE {of_holds}")
            tables = [*_tables(con, request)]
            self._find_keys(con, request, tables)
            con.execute(f"CREATE OR REPLACE TEMP TABLE {_REVISIONS} (pipeline VARCHAR, id VARCHAR)")
            before = sum(_number(con, table.sql) for table in tables)
            removed, lost, of_partition = 0, set[str](), dict[tuple[str, str, str | None, str | None], int]()
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
                    removed += number
                    at = (table.pipeline, key, *ids)
                    of_partition[at] = of_partition.get(at, 0) + number
                    if table.kind == "features":
                        con.execute(f"INSERT INTO {_REVISIONS} VALUES ({literal(table.pipeline)}, {literal(of)})")
                    else:
                        lost.add(of)
                con.execute(f"DELETE FROM {table.sql} WHERE {where}")
            of_revisions = (
                f"SELECT s.scoring_id FROM ledger.scorings s JOIN {_REVISIONS} r ON r.pipeline = s.pipeline "
                "AND r.id = s.feature_revision"
            )
            lost |= {row[0] for row in con.execute(of_revisions).fetchall()}
            concerned = {pipeline for pipeline, *_ in of_partition} | {*request.partitions}
            for now in sources:
                if now.name in concerned or has_subject(con, now):
                    lost.update(forget_sources(con, now))
            scorings = sorted(lost)
            for table in tables:
                _measure(con, table, scorings)
            _forget(con, request, scorings, of_partition)
            rewrite_id = f"{request.erasure_id}/{clock.now():%Y%m%dT%H%M%S%f}"
            rewrite(con, rewrite_id, "erasure", scorings, actor=self._actor)
            remains, until = kept_text(kept, held)
            remains += _REMAINS + _of_nobody(tables, request)
            return Removed(before + gone, removed + gone, before - removed, _METHOD, remains, until)

    def keep(self, con: DuckDBPyConnection, request: ErasureRequest, hold_id: str, within: str = "true") -> int:
        """Copy the subject's rows to those that are kept for a hold; how many. Call it before they are deleted.

        `within`: a further condition of the rows, with `{id}` for the column of its scoring or revision.
        """
        kept, tables = 0, [*_tables(con, request)]
        self._find_keys(con, request, tables)
        given = {"hold": hold_id, "erasure": request.erasure_id, "now": clock.now()}
        for table in tables:
            if where := table.where(request, self._keys):
                rows = f"{table.sql} t WHERE ({where}) AND {within.format(id=IDS.get(table.kind, 'scoring_id'))}"
                kept += _number(con, rows)
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
        tables = [*_tables(con, request)]
        self._find_keys(con, request, tables)
        for table in tables:
            if (where := table.where(request, self._keys)) is None:
                continue
            rows = con.execute(f"SELECT partition_key, count(*) FROM {table.sql} WHERE {where} GROUP BY 1").fetchall()
            for key, number in rows:
                found[table.pipeline, key] = found.get((table.pipeline, key), 0) + number
        return found

    def _find_keys(self, con: DuckDBPyConnection, request: ErasureRequest, tables: Sequence[_Table]) -> None:
        """The rows that were scored from the subject's features: other tables may have no column of the subject.

        By scoring: the same key may be another person's in another pipeline, or in a corrected revision.
        """
        con.execute(f"CREATE OR REPLACE TEMP TABLE {_ERASED} (scoring_id VARCHAR, row_key VARCHAR)")
        for table in tables:
            named = [column_named(table.columns, name) for name in self._keys.get(table.pipeline, ())]
            if table.kind == "features" and all(named):
                where = table.where(request, self._keys)
                if where:
                    con.execute(
                        f"INSERT INTO {_ERASED} SELECT s.scoring_id, f.row_key FROM ledger.scorings s JOIN (SELECT "
                        f"DISTINCT partition_key, revision, {_row_key(named)} AS row_key FROM {table.sql} WHERE "
                        f"{where}) f ON f.partition_key = s.partition_key AND f.revision = s.feature_revision "
                        f"WHERE s.pipeline = {literal(table.pipeline)}"
                    )


def _tables(con: DuckDBPyConnection, request: ErasureRequest) -> Iterator[_Table]:
    for (pipeline, name), columns in columns_of_tables(con, {*request.columns}).items():
        table = _Table(pipeline, name, columns)
        if table.kind in KINDS:
            yield table


def _of_nobody(tables: Sequence[_Table], request: ErasureRequest) -> str:
    """Tables of features from before the subject was declared, as the end of a sentence."""
    found = sorted(
        f"{table.pipeline}.{table.name}"
        for table in tables
        if table.kind == "features" and not column_named(table.columns, request.columns[table.pipeline])
    )
    what = "which have no column of the subject: nothing says whose they are"
    return f"; rows of {', '.join(found)}, {what}" if found else ""


def _measure(con: DuckDBPyConnection, table: _Table, scorings: Sequence[str]) -> None:
    """Numbers of rows and digests of what is left, as they are when rows are stored."""
    if table.kind in ("scores", "features"):
        id_ = IDS[table.kind]
        covered = covered_columns(table.kind, table.columns)
        digest = digest_sql(covered, "coalesce(f.n, 0)", "coalesce(f.total, 0)", "coalesce(f.bits, 0)")
        revisions = f"SELECT DISTINCT id FROM {_REVISIONS} WHERE pipeline = {literal(table.pipeline)}"
        ids = scorings if table.kind == "scores" else [row[0] for row in con.execute(revisions).fetchall()]
        found = f"SELECT {id_} AS id, {row_set_sql(covered)} FROM {table.sql} WHERE {among(id_, ids)} GROUP BY {id_}"
    if table.kind == "scores" and scorings:
        con.execute(
            f"UPDATE ledger.scorings SET score_digest = g.digest, rows_scored = g.n, mean_score = NULL, "
            f"min_score = NULL, max_score = NULL FROM (SELECT s.scoring_id AS of, coalesce(f.n, 0)::BIGINT AS n, "
            f"{digest} AS digest FROM ledger.scorings s LEFT JOIN ({found}) f(id, n, total, bits) "
            f"ON f.id = s.scoring_id WHERE s.pipeline = {literal(table.pipeline)} "
            f"AND s.table_name = {literal(table.name)} AND {among('s.scoring_id', scorings)}) g "
            "WHERE ledger.scorings.scoring_id = g.of"
        )
    elif table.kind == "features":
        measured = (
            f"SELECT r.id AS of, coalesce(f.n, 0)::BIGINT AS n, {digest} AS digest FROM (SELECT DISTINCT e.revision AS "
            f"id FROM ledger.extractions e JOIN {_REVISIONS} r ON r.pipeline = e.pipeline AND r.id = e.revision "
            f"WHERE e.pipeline = {literal(table.pipeline)} AND e.table_name = {literal(table.name)}) r "
            f"LEFT JOIN ({found}) f(id, n, total, bits) ON f.id = r.id"
        )
        con.execute(
            f"UPDATE ledger.extractions SET feature_digest = g.digest, rows_extracted = g.n FROM ({measured}) g "
            f"WHERE ledger.extractions.revision = g.of AND ledger.extractions.pipeline = {literal(table.pipeline)}"
        )
        con.execute(
            f"UPDATE ledger.scorings SET feature_digest = g.digest, rows_in = g.n FROM ({measured}) g "
            f"WHERE ledger.scorings.feature_revision = g.of AND ledger.scorings.pipeline = {literal(table.pipeline)}"
        )


def _forget(
    con: DuckDBPyConnection,
    request: ErasureRequest,
    scorings: Sequence[str],
    of_partition: Mapping[tuple[str, str, str | None, str | None], int],
) -> None:
    """What the ledger has of values in the erased rows; and note what each partition lost."""
    partitions: dict[str, set[str]] = {}
    for pipeline, key, *_ in of_partition:
        partitions.setdefault(pipeline, set()).add(key)
    lost = [_LossEntry(request.erasure_id, *of, rows, clock.now()) for of, rows in of_partition.items()]
    insert_many(con, "erased_partitions", lost)
    if scorings:
        for name in _FIGURES:
            con.execute(f"DELETE FROM ledger.{name} WHERE {among('scoring_id', scorings)}")
        quarantined = " UNION ALL ".join(
            f"SELECT scoring_id FROM {table.sql}" for table in _tables(con, request) if table.kind == "quarantine"
        )
        counts = f"SELECT scoring_id, count(*) AS n FROM ({quarantined}) GROUP BY 1" if quarantined else None
        if counts:
            con.execute(
                f"UPDATE ledger.scorings SET rows_quarantined = g.n FROM (SELECT s.scoring_id AS of, coalesce(c.n, 0) "
                f"AS n FROM ledger.scorings s LEFT JOIN ({counts}) c ON c.scoring_id = s.scoring_id WHERE "
                f"{among('s.scoring_id', scorings)} AND s.rows_quarantined > 0) g "
                "WHERE ledger.scorings.scoring_id = g.of"
            )
    for pipeline, keys in partitions.items():
        of = f"pipeline = {literal(pipeline)} AND {among('partition_key', sorted(keys))}"
        # A split's is no value of a row: `status` reads from it whether it was decided.
        kept = "CASE WHEN section = 'split' THEN observed END"
        con.execute(f"UPDATE ledger.checks SET examples = NULL, observed = {kept} WHERE {of}")
        con.execute(f"UPDATE ledger.deliveries SET digest = NULL WHERE {of}")
        con.execute(f"DELETE FROM ledger.published_digests WHERE {of}")


def _number(con: DuckDBPyConnection, sql: str) -> int:
    row = con.execute(f"SELECT count(*) FROM {sql}").fetchone()
    return int(row[0]) if row else 0


def _row_key(columns: Sequence[str | None]) -> str:
    """SQL of a row's key as one text, the same in every table."""
    return f"to_json([{', '.join(f'{quote(each)}::VARCHAR' for each in columns if each)}])::VARCHAR"


def _listed(values: Sequence[str]) -> str:
    return ", ".join(map(literal, values)) or "NULL"
