"""Scored rows beside their labels: staged for some partitions, with what divides them, to be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.compared import unit_of
from pip_dagster.flow.label_window import label_key_error, stage_labels
from pip_dagster.flow.stage import keep, stored_columns
from pip_dagster.registry.metric_spec import metric_spec
from pip_dagster.sql.names import among, literal, quote
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.digest import RowSet, row_set_sql
from pip_dagster.warehouse.tables import live_row

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.ledger.performance import Part
    from pip_dagster.registry.manifest import Manifest
    from pip_dagster.statistics.metrics.spec import MetricSpec

# Of a segment's values in a partition; rows of the others are counted together.
MOST_VALUES = 50
OTHER = "(other)"


@dataclass(frozen=True)
class PartRows:
    """What is known of a part's rows before they are measured."""

    rows: int
    labelled: int
    digest: str


@dataclass(frozen=True)
class ScoredRows:
    """The rows of some parts, in `relation`.

    Its columns are pip_part (`part_name`), the columns of `spec`, `segments` (declared column → column), pip_unit, and
    pip_bin: the bin of the score in the model's reference, where there is one (`bins` of them, else 0).
    """

    relation: str
    spec: MetricSpec
    segments: Mapping[str, str]
    bins: int
    parts: Mapping[str, PartRows]


def part_name(part: Part) -> str:
    """The part's name in the staged rows."""
    return f"{part.live.scoring_id} {part.arm}"


def stage_scored_rows(
    con: DuckDBPyConnection, pipeline: Pipeline, manifest: Manifest, parts: Sequence[Part]
) -> ScoredRows:
    """Stage the rows of parts that are of one version, one table of scores and one of features.

    The sources are open while labels are read, and then the warehouse while rows are.

    Raises:
        DeclarationError: labels cannot be read or joined, or no metric fits the model.
        SourceError, WarehouseError: as their readers.
    """
    import duckdb

    name, live = pipeline.spec.name, [part.live for part in parts]
    labels = stage_labels(con, pipeline, manifest, live)
    with reading(con, pipeline.project, purpose=f"{name}: reading scores to evaluate"):
        scores = dict(_columns(con, name, live[0].scores_table))
        decisions = [each for each in pipeline.spec.decisions if scores.get(each) == "BOOLEAN"]
        spec = _spec(pipeline, manifest, decisions)
        query = _Query(con, pipeline, manifest, parts, scores)
        try:
            relation = keep(con, "scored_rows", query.select(spec, labels))
        except duckdb.Error as error:
            raise label_key_error(pipeline, error) from error
    segments = {each: f"pip_segment_{i}" for i, each in enumerate(query.segments)}
    for column in segments.values():
        _limit_values(con, relation, column)
    counted = con.execute(f"SELECT pip_part, count(*), count(pip_outcome) FROM {relation} GROUP BY pip_part").fetchall()
    sets = con.execute(
        f"SELECT pip_part, {row_set_sql(['pip_hash'])} FROM {relation} WHERE pip_outcome IS NOT NULL GROUP BY pip_part"
    ).fetchall()
    digests = {row[0]: RowSet(*row[1:]).digest({"key": "", "outcome": ""}) for row in sets}
    found = {part: PartRows(rows, labelled, digests.get(part, "")) for part, rows, labelled in counted}
    return ScoredRows(relation, spec, segments, len(query.edges) + 1 if query.edges else 0, found)


def _spec(pipeline: Pipeline, manifest: Manifest, decisions: Sequence[str]) -> MetricSpec:
    declared = pipeline.spec.monitoring.performance if pipeline.spec.monitoring else None
    query = "pip_query" if declared and declared.query else None
    spec = metric_spec(manifest, decisions=decisions, query=query, key=("pip_hash",))
    if spec is None:
        what = f"{manifest.model_name} v{manifest.version} ({manifest.objective})"
        hint = "declare monitoring.performance.query" if manifest.task == "ranking" else "remove monitoring.performance"
        raise DeclarationError(f"Pipeline {pipeline.spec.name}: no metric fits {what}; {hint}.")
    return spec


class _Query:
    """The SELECT over stored scores, features and labels."""

    def __init__(
        self,
        con: DuckDBPyConnection,
        pipeline: Pipeline,
        manifest: Manifest,
        parts: Sequence[Part],
        scores: Mapping[str, str],
    ) -> None:
        self._con, self._pipeline, self._parts, self._scores = con, pipeline, parts, scores
        table = parts[0].live.revisions[0].table
        self._features = stored_columns(con, pipeline.spec.name, table)
        self.segments = [each for each in pipeline.segments if each in self._features]
        reference = manifest.score_reference.get(manifest.outputs[0])
        self.edges = reference.edges if reference and manifest.outputs[0] in scores else ()
        self._score = quote(manifest.outputs[0])
        declared = pipeline.spec.monitoring.performance if pipeline.spec.monitoring else None
        self._query = declared.query if declared else None
        self._unit = tuple(each for each in unit_of(pipeline, self._features) if each in self._features)
        needed = (*pipeline.label_key, *((self._query,) if self._query else ()))
        if missing := [each for each in needed if each not in self._features]:
            raise DeclarationError(
                f"Pipeline {pipeline.spec.name}: {', '.join(missing)} is not among the stored features of partition "
                f"{parts[0].live.key}, which are {', '.join(self._features)}. Labels and queries are found by these."
            )

    def select(self, spec: MetricSpec, labels: str) -> str:
        """SQL of the rows with the columns of `ScoredRows`, and pip_hash, of key and outcome."""
        spec_columns = dict.fromkeys((*spec.scores, *spec.decisions))
        if missing := [each for each in spec_columns if each not in self._scores]:
            raise DeclarationError(
                f"Pipeline {self._pipeline.spec.name}: the stored scores of partition {self._parts[0].live.key} have "
                f"no column {', '.join(missing)}."
            )
        key = ", ".join(self._place(each) for each in self._pipeline.spec.features.key)
        hashed = f"hash({key}, l.pip_outcome)"
        unit = ", ".join(self._place(each) for each in self._unit)
        known = " AND ".join(f"{self._place(each)} IS NOT NULL" for each in self._unit) or "false"
        columns = [
            f"{self._part} AS pip_part",
            *(f"s.{quote(each)}" for each in spec_columns),
            "l.pip_outcome",
            f"{hashed} AS pip_hash",
            f"CASE WHEN {known} THEN hash({unit}) ELSE {hashed} END AS pip_unit" if unit else f"{hashed} AS pip_unit",
            f"{self._bin} AS pip_bin",
            *(f"{_segment_value(self._place(each))} AS pip_segment_{i}" for i, each in enumerate(self.segments)),
        ]
        if self._query:
            columns.append(f"{self._place(self._query)} AS pip_query")
        same = " AND ".join(f"l.{quote(each)} = {self._place(each)}" for each in self._pipeline.label_key)
        return (
            f"SELECT {', '.join(columns)} FROM {self._rows} "
            f"LEFT JOIN {labels} l ON l.partition_key = s.partition_key AND {same}"
        )

    def _place(self, column: str) -> str:
        """A feature: of the scores where they carry it, else of the features."""
        return f"{'s' if column in self._scores else 'f'}.{quote(column)}"

    @property
    def _bin(self) -> str:
        """The number of the bin: how many edges are below the score."""
        return " + ".join(f"(s.{self._score} > '{edge!r}'::DOUBLE)::TINYINT" for edge in self.edges) or "0"

    @property
    def _part(self) -> str:
        if self._is_split:
            return "s.scoring_id || ' ' || a.arm"
        names = ", ".join(literal(part_name(part)) for part in self._parts)
        # Every statement groups by it: numbers take less time than texts of 40 characters.
        return f"(s.scoring_id || {literal(' ' + self._arm)})::ENUM({names})"

    @property
    def _arm(self) -> str:
        return self._parts[0].arm

    @property
    def _is_split(self) -> bool:
        return self._parts[0].basis != self._parts[0].live.scoring_id

    @property
    def _rows(self) -> str:
        """SQL after FROM: the scores `s` of the parts, with the features `f` if any of their columns is needed."""
        name, lives = quote(self._pipeline.spec.name), [part.live for part in self._parts]
        # Inside, so that DuckDB skips the row groups of other scorings.
        scores = f"SELECT * FROM {name}.{quote(lives[0].scores_table)} WHERE "
        rows = f"({scores}{among('scoring_id', [each.scoring_id for each in lives])}) s"
        if self._is_split:
            owned = live_row(self._con, self._pipeline.spec.name, "s", "a")
            rows += (
                f" JOIN ledger.live_arms a ON a.pipeline = {literal(self._pipeline.spec.name)} "
                f"AND a.scoring_id = s.scoring_id AND {among('a.change_id', {part.basis for part in self._parts})} "
                f"AND {among('a.arm', {part.arm for part in self._parts})} AND {owned}"
            )
        needed = {*self._pipeline.label_key, *self._unit, *self.segments, *([self._query] if self._query else [])}
        if needed <= self._scores.keys():
            return rows
        of = lives[0].revisions[0].table
        kept = among("revision", {each.revisions[0].revision for each in lives})
        same = " AND ".join(
            f"f.{quote(each)} = s.{quote(each)}" for each in ("partition_key", *self._pipeline.spec.features.key)
        )
        return f"{rows} JOIN (SELECT * FROM {name}.{quote(of)} WHERE {kept}) f ON {same}"


def _segment_value(column: str) -> str:
    """SQL of a segment's value as text, NULL as a word; a text that is this word is in quotes."""
    text = f"{column}::VARCHAR"
    return f"coalesce(if({text} = 'NULL', $$'NULL'$$, {text}), 'NULL')"


def _columns(con: DuckDBPyConnection, pipeline: str, table: str) -> list[tuple[str, str]]:
    rows = con.execute(f"DESCRIBE {quote(pipeline)}.{quote(table)}").fetchall()
    return [(row[0], row[1]) for row in rows if row[0] not in ("partition_key", "scoring_id")]


def _limit_values(con: DuckDBPyConnection, relation: str, column: str) -> None:
    """Count the rarest values of a segment together, in a partition that has too many."""
    found = con.execute(
        f"SELECT pip_part FROM {relation} GROUP BY pip_part HAVING count(DISTINCT {column}) > {MOST_VALUES}"
    )
    if not (parts := [row[0] for row in found.fetchall()]):
        return
    kept = (
        f"SELECT pip_part, {column} AS v FROM {relation} WHERE {among('pip_part', parts)} GROUP BY pip_part, v "
        f"QUALIFY row_number() OVER (PARTITION BY pip_part ORDER BY count(*) DESC, v) <= {MOST_VALUES}"
    )
    con.execute(
        f"UPDATE {relation} r SET {column} = {literal(OTHER)} WHERE {among('pip_part', parts)} "
        f"AND (r.pip_part, r.{column}) NOT IN ({kept})"
    )
