"""Everything that was predicted about one person, from the warehouse and the registry, and nothing about others.

Rows are collected into tables in memory while the warehouse is open, and read one by one when it is closed again: a
person may have thousands of predictions, and nobody waits for the page that lists them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pip_dagster.errors import DeclarationError, NotFoundError, PipelineError
from pip_dagster.flow.stage import SCHEMA as STAGED
from pip_dagster.flow.stage import stored_columns
from pip_dagster.ledger.purged import purged_of
from pip_dagster.ledger.record import dicts
from pip_dagster.registry.choose import registry_of
from pip_dagster.reporting.card import gates_of
from pip_dagster.reporting.subject_held import held_rows
from pip_dagster.reporting.subject_reasons import add_reasons, reasons_cell
from pip_dagster.sql.names import column_named, literal, quote
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.tables import is_there, live_row, views_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project

SCHEMA = "pip-dagster subject report 1"
_BATCH = 500
# What the report has of a scoring, apart from the row itself.
_OF_SCORING = (
    *("status", "role", "model_name", "model_version", "model_digest", "manifest_digest", "feature_revision"),
    *("made_at", "made_by", "run_id", "declared_row", "partition_start", "partition_end"),
)
# The changes that made a scoring live, for all rows or as an arm; what followed ended them.
_LIVE = """
  SELECT u.scoring_id, c.change_id, c.made_at AS live_from, n.live_until, c.made_by AS changed_by, c.why, c.kind, u.arm
  FROM (SELECT scoring_id, change_id, NULL AS arm FROM ledger.live_changes UNION ALL
        SELECT scoring_id, change_id, arm FROM ledger.arms) u
  JOIN ledger.live_changes c ON c.change_id = u.change_id
  JOIN (SELECT change_id, lead(made_at) OVER (PARTITION BY pipeline, partition_key ORDER BY change_id) AS live_until
        FROM ledger.live_changes WHERE pipeline = $pipeline) n ON n.change_id = c.change_id
  WHERE c.pipeline = $pipeline AND u.scoring_id IN (SELECT scoring_id FROM {predictions})
"""


@dataclass(frozen=True)
class SubjectRows:
    """What one pipeline has about the person; the rows are read from `con` when they are iterated.

    `notes`: what could not be searched, such as purged partitions. `erasures`: what was erased of the person before.
    `features`: the warehouse's table → the relation of the person's rows in it. `held`: rows that were taken away, and
    that a legal hold keeps.
    """

    con: DuckDBPyConnection
    pipeline: Pipeline
    column: str
    number: int
    predicted: int
    quarantined: int
    erasures: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    features: Mapping[str, str]
    held: tuple[dict[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.pipeline.spec.name

    def predictions(self) -> Iterator[dict[str, Any]]:
        """Every prediction, by partition and then by when it was scored."""
        table = _table("predictions", self.number)
        cursor = self.con.cursor()
        for row in _stream(cursor, f"SELECT * FROM {table} ORDER BY partition_start, scoring_id"):
            declared = json.loads(row.pop("declared_row") or "{}")
            del row["feature_table"]
            columns = set(json.loads(row.pop("score_columns")))
            read = set(json.loads(row.pop("feature_columns")))
            scored, features = (json.loads(row.pop(name)) for name in ("scored", "features"))
            own = {"partition_key", "scoring_id", "revision"}
            yield row | {
                "result": {name: of for name, of in scored.items() if name in columns - own - read},
                "features": {name: of for name, of in features.items() if name in read - own},
                "sources": json.loads(row["sources"] or "{}"),
                "decision_rule": dict(declared.get("decisions", [])),
                "reasons": json.loads(row["reasons"]) if row["reasons"] else [],
                "live": json.loads(row["live"] or "[]"),
                "deliveries": json.loads(row["deliveries"] or "[]"),
            }

    def quarantine(self) -> Iterator[dict[str, Any]]:
        """Every row of the person that was not scored, with why."""
        if self.quarantined:
            table = _table("quarantine", self.number)
            for row in _stream(self.con.cursor(), f"SELECT * FROM {table} ORDER BY partition_key, scoring_id"):
                yield row | {"row": json.loads(row["row"])}

    def models(self) -> list[dict[str, Any]]:
        """The versions that scored the person: what the registry has of them, their gates and who promoted them."""
        rows = self.con.execute(
            f"SELECT DISTINCT model_name, model_version, model_digest FROM {_table('predictions', self.number)} "
            "ORDER BY ALL"
        )
        return [_model(self.pipeline, *row) for row in rows.fetchall()]


@contextmanager
def about(
    project: Project, pipelines: Sequence[tuple[Pipeline, str]], values: Sequence[str], tokens: Sequence[str] = ()
) -> Iterator[tuple[SubjectRows, ...]]:
    """What these pipelines, each with the column of its subjects, have about the person whom any of `values` names.

    Values are compared as text. `tokens`: the person's entries in the list of suppressed subjects.

    Raises:
        NotFoundError: none of them has a row of the person.
        DeclarationError: no features of a pipeline ever had its column.
        WarehouseError: there is no warehouse yet, or it stayed locked.
    """
    with workspace(threads=2) as con:
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {STAGED}")
        with reading(con, project, purpose="a subject report"):
            found = [
                _collect(con, pipeline, column, number, values, tokens)
                for number, (pipeline, column) in enumerate(pipelines)
            ]
        for each in found:
            add_reasons(con, each.pipeline, _table("predictions", each.number), each.features)
        if not any(each.predicted or each.quarantined or each.erasures or each.held for each in found):
            names = ", ".join(f"{each.name} ({each.column})" for each in found)
            notes = " ".join(note for each in found for note in each.notes)
            raise NotFoundError(
                f"No prediction, no quarantined row and no erasure of this subject is stored in {names}. Check the "
                f"identifier: it is compared as text with the named column. {notes}".strip(),
                name="the subject",
            )
        yield tuple(found)


def _collect(
    con: DuckDBPyConnection, pipeline: Pipeline, column: str, number: int, values: Sequence[str], tokens: Sequence[str]
) -> SubjectRows:
    name = pipeline.spec.name
    schema, views = quote(name), views_of(con, name)
    given = f"IN ({', '.join(literal(value) for value in values)})"
    predictions, quarantine = _table("predictions", number), _table("quarantine", number)
    notes: list[str] = []
    columns = _columns(con, name, "features") if "features" in views else {}
    if columns and not any(column_named(of, column) for of in columns.values()):
        raise DeclarationError(
            f"Pipeline {name}: its features have no column {column!r}; they have "
            f"{', '.join(sorted(set().union(*columns.values())))}."
        )
    if lacking := [table for table, of in columns.items() if not column_named(of, column)]:
        rows = sum(con.execute(f"SELECT count(*) FROM {schema}.{quote(table)}").fetchall()[0][0] for table in lacking)
        notes.append(f"{name}: {rows:,} older rows of features have no column {column} and could not be searched.")
    con.execute(f"CREATE OR REPLACE TABLE {predictions} AS {_nothing()}")
    if "scores" in views and columns:
        scores = _columns(con, name, "scores")
        for key in _keys(con, pipeline):
            con.execute(f"INSERT INTO {predictions} BY NAME {_select(con, pipeline, column, given, key)}")
        for which, of_table in (("score_columns", scores), ("feature_columns", columns)):
            for table, has in of_table.items():
                con.execute(
                    f"UPDATE {predictions} SET {which} = {literal(json.dumps(has))} WHERE {which} = {literal(table)}"
                )
        _add_events(con, name, predictions)
    features: dict[str, str] = {}
    for i, table in enumerate(table for table, of in columns.items() if column_named(of, column)):
        features[table] = _table(f"features_{i}", number)
        rows = f"FROM {schema}.{quote(table)} WHERE {quote(column)}::VARCHAR {given}"
        con.execute(f"CREATE OR REPLACE TABLE {features[table]} AS {rows}")
    quarantined = 0
    if "quarantine" in views and any(column_named(of, column) for of in _columns(con, name, "quarantine").values()):
        con.execute(
            f"CREATE OR REPLACE TABLE {quarantine} AS SELECT q.partition_key, q.scoring_id, q.broken, "
            "q.resolved_at, e.made_at, e.model_name, e.model_version, "
            f"to_json(q)::VARCHAR AS row FROM {schema}.quarantine q "
            f"LEFT JOIN ledger.scorings e ON e.scoring_id = q.scoring_id WHERE q.{quote(column)}::VARCHAR {given}"
        )
        quarantined = _count(con, quarantine)
    erasures: list[dict[str, Any]] = []
    if tokens:
        of_these = ", ".join(literal(token) for token in tokens)
        erasures = dicts(
            con.execute(
                "SELECT erasure_id, kind, state, why, ground, received_at, made_at FROM ledger.erasures "
                f"WHERE erasure_id IN (SELECT erasure_id FROM ledger.suppressions WHERE subject IN ({of_these}) "
                "AND pipeline = $pipeline) "
                "QUALIFY row_number() OVER (PARTITION BY erasure_id ORDER BY made_at DESC) = 1",
                {"pipeline": name},
            )
        )
    for purged in purged_of(con, name):
        notes.append(f"{name}, {purged.text}. Nothing is known of these, nor whether the person was in them.")
    predicted = _count(con, predictions)
    held = held_rows(con, name, tokens)
    return SubjectRows(
        con, pipeline, column, number, predicted, quarantined, tuple(erasures), tuple(notes), features, held
    )


def _select(con: DuckDBPyConnection, pipeline: Pipeline, column: str, given: str, key: Sequence[str]) -> str:
    """The person's scored rows of the scorings whose declaration had this key."""
    name = pipeline.spec.name
    schema = quote(name)
    recorded = "coalesce(e.declared_row::JSON->>'$.key', " + literal(json.dumps(pipeline.spec.features.key)) + ")"
    same = " AND ".join(f"s.{quote(each)} = f.{quote(each)}" for each in key)
    reasons = "NULL::VARCHAR"
    join = ""
    if is_there(con, name, "reasons") or "reasons" in views_of(con, name):
        names = ", ".join(quote(each) for each in key)
        join = (
            f"LEFT JOIN (SELECT scoring_id, {names}, "
            f"{reasons_cell()} AS reasons "
            f"FROM {schema}.reasons GROUP BY scoring_id, {names}) r ON r.scoring_id = s.scoring_id AND "
            + " AND ".join(f"r.{quote(each)} = s.{quote(each)}" for each in key)
        )
        reasons = "r.reasons"
    key_text = ", ".join(f"{quote(each)} := f.{quote(each)}" for each in key)
    return (
        f"SELECT s.partition_key, s.scoring_id, {', '.join(f'e.{each}' for each in _OF_SCORING)}, "
        f"to_json(struct_pack({key_text}))::VARCHAR AS row_key, to_json(s)::VARCHAR AS scored, "
        f"to_json(f)::VARCHAR AS features, {reasons} AS reasons, e.table_name AS score_columns, "
        "x.table_name AS feature_columns, x.table_name AS feature_table, x.source_digests AS sources, "
        "x.made_at AS data_read_at, "
        "l.scoring_id IS NOT NULL AS is_live, l.arm "
        f"FROM {schema}.features f "
        f"JOIN ledger.scorings e ON e.pipeline = {literal(name)} AND e.feature_revision = f.revision "
        "AND e.partition_key = f.partition_key "
        f"JOIN {schema}.scores s ON s.scoring_id = e.scoring_id AND {same} {join} "
        "LEFT JOIN ledger.extractions x ON x.revision = e.feature_revision AND x.is_new "
        f"LEFT JOIN ledger.live_arms l ON l.pipeline = {literal(name)} AND l.scoring_id = e.scoring_id "
        f"AND {live_row(con, name)} "
        f"WHERE f.{quote(column)}::VARCHAR {given} AND {recorded}::JSON = {literal(json.dumps(key))}::JSON"
    )


def _keys(con: DuckDBPyConnection, pipeline: Pipeline) -> list[list[str]]:
    """The keys that scorings were ever declared with."""
    rows = con.execute(
        "SELECT DISTINCT declared_row FROM ledger.scorings WHERE pipeline = $pipeline", {"pipeline": pipeline.spec.name}
    ).fetchall()
    keys = {tuple(json.loads(row[0])["key"]) if row[0] else tuple(pipeline.spec.features.key) for row in rows}
    return [list(key) for key in sorted(keys)]


def _add_events(con: DuckDBPyConnection, name: str, predictions: str) -> None:
    """When each scoring was live, and to whom it was delivered while it was."""
    live = f"({_LIVE.format(predictions=predictions)})"
    of_live = "live_from := l.live_from, live_until := l.live_until, arm := l.arm, by := l.changed_by, why := l.why"
    con.execute(
        f"UPDATE {predictions} p SET live = o.live FROM (SELECT l.scoring_id, to_json(list(struct_pack({of_live}, "
        f"kind := l.kind) ORDER BY l.change_id))::VARCHAR AS live FROM {live} l GROUP BY ALL) o "
        "WHERE o.scoring_id = p.scoring_id",
        {"pipeline": name},
    )
    of_delivery = "target := d.target, kind := d.kind, place := d.place, delivered_at := d.made_at"
    con.execute(
        f"UPDATE {predictions} p SET deliveries = o.deliveries FROM (SELECT l.scoring_id, "
        f"to_json(list(struct_pack({of_delivery}) ORDER BY d.delivery_id))::VARCHAR AS deliveries FROM {live} l "
        "JOIN ledger.deliveries d ON d.change_id = l.change_id AND d.state = 'delivered' GROUP BY ALL) o "
        "WHERE o.scoring_id = p.scoring_id",
        {"pipeline": name},
    )


def _model(pipeline: Pipeline, name: str | None, number: int | None, digest: str | None) -> dict[str, Any]:
    """A version as it scored, with what the registry knows of it."""
    found: dict[str, Any] = {"model": name, "version": number, "digest": digest}
    found["card"] = f"pip-dagster models card {pipeline.spec.name}"
    try:
        registry = registry_of(pipeline.project, pipeline.spec.scoring)
        version = registry.get(str(name), int(number or 0))
        moves = [move for move in registry.alias_history(str(name)) if move.version == number]
        gates = gates_of(pipeline, version)
    except PipelineError as error:
        unknown = dict.fromkeys(("registered_at", "registered_by", "description", "objective"))
        return found | unknown | {"unavailable": str(error), "gates": [], "promotions": []}
    manifest = version.manifest
    return found | {
        "unavailable": None if version.digest == digest else "the registry's version has another digest since",
        "registered_at": manifest.registered_at.isoformat(),
        "registered_by": manifest.registered_by,
        "description": manifest.description,
        "objective": manifest.objective,
        "gates": [{"name": gate.name, "state": gate.state, "text": gate.text} for gate in gates],
        "promotions": [
            {"alias": move.alias, "at": move.at.isoformat(), "by": move.by, "why": move.why} for move in moves
        ],
    }


def _nothing() -> str:
    """The columns of the table of predictions, without a row."""
    texts = (
        *("partition_key", "scoring_id", "status", "role", "model_name", "model_digest", "feature_revision", "made_by"),
        *("manifest_digest", "feature_table", "reasons_from", "no_reasons"),
        *("run_id", "declared_row", "row_key", "scored", "features", "reasons", "score_columns", "feature_columns"),
        *("sources", "arm", "live", "deliveries"),
    )
    instants = ("made_at", "partition_start", "partition_end", "data_read_at")
    cells = [f"NULL::VARCHAR AS {name}" for name in texts] + [f"NULL::TIMESTAMPTZ AS {name}" for name in instants]
    return f"SELECT {', '.join(cells)}, NULL::BIGINT AS model_version, false AS is_live LIMIT 0"


def _columns(con: DuckDBPyConnection, pipeline: str, kind: str) -> dict[str, list[str]]:
    """Table of this kind → its columns."""
    rows = con.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = $schema "
        "AND starts_with(table_name, $kind) ORDER BY table_oid",
        {"schema": pipeline, "kind": f"{kind}__"},
    ).fetchall()
    return {row[0]: list(stored_columns(con, pipeline, row[0])) for row in rows}


def _table(kind: str, number: int) -> str:
    return f"{STAGED}.subject_{kind}_{number}"


def _count(con: DuckDBPyConnection, table: str) -> int:
    found = con.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(found[0]) if found else 0


def _stream(con: DuckDBPyConnection, query: str) -> Iterator[dict[str, Any]]:
    result = con.execute(query)
    names = [column[0] for column in result.description or []]
    while rows := result.fetchmany(_BATCH):
        for row in rows:
            yield dict(zip(names, row, strict=True))
