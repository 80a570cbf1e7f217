"""The newest live partitions scored again by candidate and champion, on the same rows, side by side in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.findings import ScoringPolicy
from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.score import score
from pip_dagster.flow.stage import Stage, keep
from pip_dagster.promotion.stored import LivePartition, Revision, Stored, load
from pip_dagster.registry.task import default_decision
from pip_dagster.sql.names import quote, quote_all
from pip_dagster.sql.row_sql import row_expression
from pip_dagster.statistics.agreement import paired_columns
from pip_dagster.statistics.gate_result import GateResult

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline


@dataclass(frozen=True)
class Rescored:
    """What was rescored; `relation` has a row for each live row, as `statistics.agreement` reads it."""

    partitions: tuple[LivePartition, ...] = ()
    rows: int = 0
    lost: int = 0
    problems: tuple[str, ...] = ()
    decision: str | None = None
    relation: str = ""


def rescore(
    stage: Stage,
    pipeline: Pipeline,
    stored: Stored,
    candidate: ScoringModel,
    champion: ScoringModel,
    progress: Callable[[str], None],
) -> Rescored:
    """Score the live rows with both, by the features of their scoring, or newer ones if only those fit.

    The features of the last feature table stay staged, for measuring throughput.

    Raises:
        DeclarationError: a segment is not a column of the features, or the decision is not an expression over the
            scored row.
    """
    gates = pipeline.gates
    decision = gates.decision or default_decision(champion.version.manifest)
    groups, problems = _groups(stored, (candidate, champion))
    rescored: list[LivePartition] = []
    relation = ""
    for table, chosen in groups.items():
        columns = stored.columns[table]
        if absent := [name for name in gates.segments if name not in columns]:
            raise DeclarationError(
                f"Pipeline {pipeline.spec.name}: gates.segments names {', '.join(map(repr, absent))}, which the stored "
                f"features do not have; they have {', '.join(columns)}."
            )
        keys = [partition.key for partition in chosen]
        progress(f"replaying {keys[0]} to {keys[-1]} with {candidate.version} and {champion.version}")
        load(stage, pipeline, table, chosen)
        by_champion, refused = _scored_by(champion, "champion", stage, pipeline, keys, decision)
        by_candidate, others = _scored_by(candidate, "candidate", stage, pipeline, keys, decision)
        problems.extend(f"{key}: {text}" for key, text in sorted((refused | others).items()))
        select = _paired(stage, pipeline, champion.version.manifest.outputs, by_champion, by_candidate)
        relation = keep(stage.con, "rescored", select, more=bool(rescored))
        rescored.extend(chosen)
    if not rescored:
        return Rescored(problems=tuple(problems), decision=decision)
    counted = stage.con.execute(f"SELECT count(*), count(*) FILTER (NOT pip_seen) FROM {relation}").fetchone()
    rows, lost = counted or (0, 0)
    return Rescored(tuple(rescored), rows, lost, tuple(problems), decision, relation)


def replay_gate(rescored: Rescored, candidate: str) -> GateResult:
    """Whether the candidate scores every row that is live; without it no other comparison is whole."""
    share = rescored.lost / rescored.rows if rescored.rows else 1.0
    passed = not rescored.problems and not rescored.lost
    keys = [partition.key for partition in rescored.partitions]
    span = f"{len(keys)} partitions, {keys[0]} to {keys[-1]}" if keys else "no partition"
    text = f"{rescored.rows - rescored.lost:,} of {rescored.rows:,} live rows scored by {candidate} ({span})"
    text += "".join(f"; {problem}" for problem in rescored.problems)
    return GateResult("replay", passed, share, 0.0, text, {"partitions": keys, "problems": list(rescored.problems)})


def _groups(
    stored: Stored, models: Sequence[ScoringModel]
) -> tuple[dict[str, dict[LivePartition, Revision]], list[str]]:
    """The partitions by feature table, each with the first revision that fits both models; and those without one."""
    misfits = {table: _misfit(columns, models) for table, columns in stored.columns.items()}
    groups: dict[str, dict[LivePartition, Revision]] = {}
    problems: list[str] = []
    for partition in stored.partitions:
        fitting = [revision for revision in partition.revisions if misfits[revision.table] is None]
        if fitting:
            groups.setdefault(fitting[0].table, {})[partition] = fitting[0]
        else:
            problems.append(f"{partition.key}: {misfits[partition.revisions[-1].table]}")
    return groups, problems


def _misfit(columns: dict[str, str], models: Sequence[ScoringModel]) -> str | None:
    try:
        for model in models:
            encode_model(model.version.manifest, columns, where=str(model.version))
    except DeclarationError as error:
        return str(error)
    return None


def _scored_by(
    model: ScoringModel, role: str, stage: Stage, pipeline: Pipeline, keys: Sequence[str], decision: str | None
) -> tuple[str, dict[str, str]]:
    """The relation of the staged rows scored as production would; and the partitions that it would refuse."""
    import duckdb

    stage.admit_all()
    spec = pipeline.spec
    # Features from before a split need not have its unit.
    policy = replace(ScoringPolicy.declared(spec), carried=(*spec.features.key, spec.features.partition_column))
    scores = score(stage, spec, model.predictor, model.version.manifest, keys, policy)
    value = "NULL"
    if decision is not None:
        where, row = f"Pipeline {spec.name}: gates.decision", f"the row scored by {model.version}"
        value = row_expression(decision, scores.columns, where=where, row=row).sql
    try:
        decided = f"SELECT *, {value}::VARCHAR AS pip_decision FROM {stage.scores}"
        relation = keep(stage.con, f"by_{role}", decided)
    except duckdb.Error as error:
        raise DeclarationError(
            f"Pipeline {spec.name}: gates.decision {decision!r} fails on a row scored by {model.version}: {error}"
        ) from error
    refused = scores.failed | scores.blocked
    return relation, {key: f"{model.version} would not score it: {text}" for key, text in refused.items()}


def _paired(stage: Stage, pipeline: Pipeline, outputs: Sequence[str], by_champion: str, by_candidate: str) -> str:
    """SQL of the rows of both, as `statistics.agreement` reads them, with the columns of a label's key.

    The names of the outputs were compared before.
    """
    key = pipeline.spec.features.key
    on = " AND ".join(f"{{0}}.{quote(name)} = a.{quote(name)}" for name in ("partition_key", *key))
    selected = [
        "a.partition_key",
        f"concat_ws(', ', {quote_all(key, 'a.')}) AS pip_key",
        *(f"a.{quote(name)}" for name in key),
        paired_columns(outputs),
        "b.partition_key IS NOT NULL AS pip_seen",
        *(f"f.{quote(name)}::VARCHAR AS pip_segment_{i}" for i, name in enumerate(pipeline.gates.segments)),
        *(f"f.{quote(name)}" for name in pipeline.label_key if name not in key),
    ]
    return (
        f"SELECT {', '.join(selected)} FROM {by_champion} a LEFT JOIN {by_candidate} b ON {on.format('b')} "
        f"LEFT JOIN {stage.features} f ON {on.format('f')}"
    )
