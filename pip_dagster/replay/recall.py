"""What was recorded of a scoring, read from the warehouse and checked against the ledger's digests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pip_dagster.declaration.key_order import between
from pip_dagster.declaration.ranges import evenly
from pip_dagster.errors import PipelineError
from pip_dagster.flow.stage import Stage, keep
from pip_dagster.ledger.arms import Arm, live_arms
from pip_dagster.ledger.record import ScoringEntry, dicts
from pip_dagster.plural import plural
from pip_dagster.sql.names import among, literal, quote, quote_all
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.digest import ALGORITHM, RowSet, row_set_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.manifest import Manifest


class ReplayError(PipelineError):
    """A scoring that cannot be replayed, with the reason."""


@dataclass(frozen=True)
class Recalled:
    """What a few scorings stored, beside the stage, which has their features and what was quarantined of them.

    `scores` and `quarantine` are relations of their rows, with scoring_id. `carried`: the columns that a score row has
    from its features, the key among them. `faults`: scoring id → what is not as the ledger recorded it. `arms`:
    partition key → who is live for which buckets, where it is split.
    """

    scores: str
    quarantine: str
    stored_columns: dict[str, str]
    carried: tuple[str, ...]
    faults: Mapping[str, Sequence[str]]
    arms: Mapping[str, Sequence[Arm]] = field(default_factory=dict)

    @property
    def score_columns(self) -> dict[str, str]:
        """What a stored row has beside partition key and carried columns."""
        beside = {"partition_key", *self.carried}
        return {name: sql_type for name, sql_type in self.stored_columns.items() if name not in beside}


def find(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    *,
    partition: str | None = None,
    partitions: tuple[str | None, str | None] = (None, None),
    scoring_id: str | None = None,
    sample: int | None = None,
    version: int | None = None,
) -> list[ScoringEntry]:
    """The live scorings of a partition, of those from a first key to a last one, or of all, those of arms included.

    By time. Or the one scoring that is named, live or not.

    `version`: the newest scoring of each partition by this version instead, live or not.

    `sample` takes so many of them, evenly spread, the same ones each time.

    Raises:
        ReplayError: there is none, or it stored no scores.
    """
    name = pipeline.spec.name
    where, wanted = "s.pipeline = $pipeline", {"pipeline": name}
    partitions = (partition, partition) if partition else partitions
    first, last = partitions
    if first is not None and first == last:
        where += f" AND s.partition_key = {literal(first)}"
    elif first or last:
        try:
            where += f" AND {between(pipeline.spec.partitions, first, last).sql('s.partition_start')}"
        except ValueError as error:
            raise ReplayError(f"Pipeline {name}: {error}.") from error
    newest = ""
    if version is not None:
        where += f" AND s.model_version = {version} AND s.table_name IS NOT NULL"
        newest = "QUALIFY row_number() OVER (PARTITION BY s.partition_key ORDER BY s.scoring_id DESC) = 1 "
    elif scoring_id is None:
        where += " AND EXISTS (FROM ledger.live_arms l WHERE l.scoring_id = s.scoring_id AND l.pipeline = s.pipeline)"
    else:
        where, wanted = f"{where} AND s.scoring_id = $scoring", wanted | {"scoring": scoring_id}
    with reading(con, pipeline.project, purpose=f"{name}: reading the ledger"):
        query = f"SELECT s.* FROM ledger.scorings s WHERE {where} {newest}ORDER BY s.partition_start, s.scoring_id"
        found = [ScoringEntry(**row) for row in dicts(con.execute(query, wanted))]
    if not found:
        asked = f"scoring {scoring_id!r}" if scoring_id else "live scoring"
        asked = asked if version is None else f"scoring by v{version}"
        if first or last:
            named = f" from {first or 'the first'} to {last or 'the last'}"
            asked += f" of partition {first!r}" if first == last else named
        raise ReplayError(f"Pipeline {name} has no {asked}; `pip-dagster lineage {name} PARTITION` lists what it has.")
    for entry in found:
        if entry.table_name is None and not entry.purged_at or (entry.status == "blocked" and not entry.rows_scored):
            raise ReplayError(
                f"Pipeline {name}, partition {entry.partition_key}: scoring {entry.scoring_id} stored no scores, "
                f"it is {entry.status}: {entry.reason}"
            )
    if sample == 1:
        return [found[len(found) // 2]]
    return found if sample is None else evenly(found, sample)


def places(con: DuckDBPyConnection, pipeline: Pipeline, entries: Iterable[ScoringEntry]) -> dict[str, str]:
    """Feature revision → the table that it was stored in."""
    name, revisions = (
        pipeline.spec.name,
        sorted({entry.feature_revision for entry in entries if entry.feature_revision}),
    )
    with reading(con, pipeline.project, purpose=f"{name}: reading the ledger"):
        rows = con.execute(
            "SELECT revision, any_value(table_name) FROM ledger.extractions "
            "WHERE pipeline = $pipeline AND list_contains($revisions, revision) GROUP BY revision",
            {"pipeline": name, "revisions": revisions},
        ).fetchall()
    return dict(rows)


def recall(
    stage: Stage, pipeline: Pipeline, entries: Sequence[ScoringEntry], table: str | None, manifest: Manifest
) -> Recalled:
    """Copy what is recorded of these scorings out of the warehouse, one short read, and check it.

    `entries` are of one model, one table of scores and one of features (`table`), and of different partitions.

    Raises:
        ReplayError: a table is gone, or has not the columns that this model's scores were stored in.
    """
    con, name, scores = stage.con, pipeline.spec.name, entries[0].table_name or ""
    if table is None:
        raise ReplayError("the ledger names no table of its feature revision")
    for entry in entries:
        for digest in (entry.feature_digest, entry.score_digest):
            if not str(digest).startswith(ALGORITHM + ":"):
                raise ReplayError(f"digest {digest} was not made by {ALGORITHM}, the only way that this version knows")
    ids = [entry.scoring_id for entry in entries]
    with reading(con, pipeline.project, purpose=f"{name}: reading for a replay"):
        present = _tables(con, name)
        if gone := {table, scores} - present.keys():
            raise ReplayError(f"the warehouse has no table {', '.join(f'{name}.{each}' for each in sorted(gone))}")
        stage.load(name, table, [entry.feature_revision or "" for entry in entries])
        stored = {column: kind for column, kind in present[scores].items() if column != "scoring_id"}
        if manifest.outputs[0] not in stored:
            raise ReplayError(f"{name}.{scores} has no column {manifest.outputs[0]!r}, a score of the model")
        # Scores come after what is carried from the features.
        carried = tuple(list(stored)[1 : list(stored).index(manifest.outputs[0])])
        of_ids = among("scoring_id", ids)
        of_quarantines = among("scoring_id", [entry.quarantined_by for entry in entries])
        kept = keep(con, "stored_scores", f"FROM {quote(name)}.{quote(scores)} WHERE {of_ids}")
        empty = f"SELECT ''::VARCHAR AS scoring_id, partition_key, {quote_all(carried)} FROM {stage.features} LIMIT 0"
        quarantine = keep(con, "stored_quarantine", empty)
        arms = live_arms(con, name, [entry.partition_key for entry in entries])
        strays: dict[str, list[str]] = {}
        for each, columns in present.items():
            source = f"{quote(name)}.{quote(each)}"
            if each.startswith("quarantine__") and columns.keys() >= set(carried):
                columns_kept = f"scoring_id, partition_key, {quote_all(carried)}"
                con.execute(f"INSERT INTO {quarantine} SELECT {columns_kept} FROM {source} WHERE {of_quarantines}")
            elif each.startswith("scores__") and each != scores:
                counted = con.execute(
                    f"SELECT scoring_id, count(*) FROM {source} WHERE {of_ids} GROUP BY ALL"
                ).fetchall()
                for scoring_id, count in counted:
                    text = f"{plural(count, 'row')} of this scoring in {name}.{each}, where it did not write"
                    strays.setdefault(scoring_id, []).append(text)
    if missing := [column for column in carried if column not in stage.columns]:
        raise ReplayError(f"{name}.{table} has no column {', '.join(missing)}, which its scores carry")
    stage.admit_all()
    same = " AND ".join(f"a.{quote(column)} IS NOT DISTINCT FROM s.{quote(column)}" for column in carried)
    stage.quarantine(
        f"SELECT s.rowid, 'recorded' FROM {stage.features} s "
        f"SEMI JOIN {quarantine} a ON a.partition_key = s.partition_key AND {same}"
    )
    recalled = Recalled(kept, quarantine, stored, carried, strays, arms)
    return replace(recalled, faults=_faults(stage, entries, recalled))


def _tables(con: DuckDBPyConnection, pipeline: str) -> dict[str, dict[str, str]]:
    rows = con.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() "
        "WHERE database_name = current_database() AND schema_name = $schema ORDER BY table_name, column_index",
        {"schema": pipeline},
    ).fetchall()
    found: dict[str, dict[str, str]] = {}
    for table, column, sql_type in rows:
        found.setdefault(table, {})[column] = sql_type
    return found


def _faults(stage: Stage, entries: Sequence[ScoringEntry], recalled: Recalled) -> dict[str, list[str]]:
    """Scoring id → what is not as it was recorded, after the faults that are known already."""
    con, features, stored = stage.con, stage.columns, recalled.stored_columns
    of_features = _row_sets(con, stage.features, "partition_key", features)
    of_scores = _row_sets(con, recalled.scores, "scoring_id", stored)
    apart = _row_sets(con, recalled.quarantine, "scoring_id", ["partition_key"])
    matched = stage.quarantined()
    faults: dict[str, list[str]] = {}
    for entry in entries:
        found = faults.setdefault(entry.scoring_id, list(recalled.faults.get(entry.scoring_id, ())))
        rows = of_features.get(entry.partition_key, RowSet())
        if (digest := rows.digest(features)) != entry.feature_digest:
            found.append(
                f"features: revision {entry.feature_revision} has digest {digest} ({plural(rows.rows, 'row')}), but "
                f"{entry.feature_digest} was recorded ({plural(entry.rows_in or 0, 'row')}): a stored feature has "
                "changed since"
            )
        rows = of_scores.get(entry.scoring_id, RowSet())
        if (digest := rows.digest(stored)) != entry.score_digest:
            found.append(
                f"scores: the stored rows have digest {digest} ({plural(rows.rows, 'row')}), but {entry.score_digest} "
                f"was recorded ({plural(entry.rows_scored or 0, 'row')}): a stored score has changed since"
            )
        kept, matching = apart.get(entry.quarantined_by, RowSet()).rows, matched.get(entry.partition_key, 0)
        recorded = entry.rows_quarantined or 0
        if entry.quarantined_by != entry.scoring_id:  # then it is all that the features have and it did not score
            recorded = of_features.get(entry.partition_key, RowSet()).rows - (entry.rows_scored or 0)
        if not kept == matching == recorded:
            found.append(
                f"quarantine: {plural(recorded, 'row')} recorded, {kept} stored, {matching} of them among the features"
            )
    return faults


def _row_sets(con: DuckDBPyConnection, relation: str, by: str, columns: Iterable[str]) -> dict[str, RowSet]:
    rows = con.execute(f"SELECT {by}, {row_set_sql(columns)} FROM {relation} GROUP BY {by}").fetchall()
    return {row[0]: RowSet(*row[1:]) for row in rows}
