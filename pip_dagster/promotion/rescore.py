"""The newest live partitions scored again by candidate and champion, on the same rows, side by side in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.query import STAGED
from pip_dagster.flow.score import SCORED, score
from pip_dagster.flow.validate import nothing_apart
from pip_dagster.promotion.stored import LivePartition, Revision, Stored, load
from pip_dagster.registry.task import default_decision
from pip_dagster.sql.names import quote, quote_all
from pip_dagster.sql.row_sql import row_expression
from pip_dagster.statistics.agreement import REPLAYED
from pip_dagster.statistics.gate_result import GateResult

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.manifest import Manifest


@dataclass(frozen=True)
class Replayed:
    """What was replayed. `columns` are those of the rows that are still staged, for measuring throughput."""

    partitions: tuple[LivePartition, ...] = ()
    rows: int = 0
    lost: int = 0
    problems: tuple[str, ...] = ()
    decision: str | None = None
    columns: dict[str, str] = field(default_factory=dict)


def replay(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    stored: Stored,
    candidate: ScoringModel,
    champion: ScoringModel,
    progress: Callable[[str], None],
) -> Replayed:
    """Fill `REPLAYED`. A partition is read with the features it was scored with, or newer ones if only those fit.

    Raises:
        DeclarationError: a segment is not a column of the features, or the decision is not an expression over the
            scored row.

    """
    gates = pipeline.gates
    decision = gates.decision or default_decision(champion.version.manifest)
    groups, problems = _groups(stored, (candidate, champion))
    replayed: list[LivePartition] = []
    columns: dict[str, str] = {}
    for table, chosen in groups.items():
        columns = stored.columns[table]
        if absent := [name for name in gates.segments if name not in columns]:
            raise DeclarationError(
                f"Pipeline {pipeline.spec.name}: gates.segments names {', '.join(map(repr, absent))}, which the stored "
                f"features do not have; they have {', '.join(columns)}."
            )
        keys = [partition.key for partition in chosen]
        progress(f"replaying {keys[0]} to {keys[-1]} with {candidate.version} and {champion.version}")
        load(con, pipeline, table, chosen)
        refused = _score_into(con, "champion", pipeline, champion, columns, keys, decision)
        refused |= _score_into(con, "candidate", pipeline, candidate, columns, keys, decision)
        problems.extend(f"{key}: {text}" for key, text in sorted(refused.items()))
        _compare(con, pipeline, champion.version.manifest, first=not replayed)
        replayed.extend(chosen)
    if not replayed:
        return Replayed(problems=tuple(problems), decision=decision)
    counted = con.execute(f"SELECT count(*), count(*) FILTER (NOT pip_seen) FROM {REPLAYED}").fetchone()
    rows, lost = counted or (0, 0)
    return Replayed(tuple(replayed), rows, lost, tuple(problems), decision, columns)


def replay_gate(replayed: Replayed, candidate: str) -> GateResult:
    """Whether the candidate scores every row that is live; without it no other comparison is whole."""
    share = replayed.lost / replayed.rows if replayed.rows else 1.0
    passed = not replayed.problems and not replayed.lost
    keys = [partition.key for partition in replayed.partitions]
    span = f"{len(keys)} partitions, {keys[0]} to {keys[-1]}" if keys else "no partition"
    text = f"{replayed.rows - replayed.lost:,} of {replayed.rows:,} live rows scored by {candidate} ({span})"
    text += "".join(f"; {problem}" for problem in replayed.problems)
    return GateResult("replay", passed, share, 0.0, text, {"partitions": keys, "problems": list(replayed.problems)})


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


def _score_into(
    con: DuckDBPyConnection,
    role: str,
    pipeline: Pipeline,
    model: ScoringModel,
    columns: dict[str, str],
    keys: Sequence[str],
    decision: str | None,
) -> dict[str, str]:
    """Score the staged rows as production would, into a table of this role; partitions that it would refuse."""
    import duckdb

    nothing_apart(con)
    # Features of before a split need not have its unit.
    spec = pipeline.spec.model_copy(update={"scoring": pipeline.spec.scoring.without_experiment()})
    scoring = score(con, spec, model.predictor, model.version.manifest, columns, keys)
    value = "NULL"
    if decision is not None:
        where, row = f"Pipeline {pipeline.spec.name}: gates.decision", f"the row scored by {model.version}"
        value = row_expression(decision, scoring.columns, where=where, row=row).sql
    try:
        con.execute(
            f"CREATE OR REPLACE TABLE memory.pip_stage.by_{role} AS "
            f"SELECT *, {value}::VARCHAR AS pip_decision FROM {SCORED}"
        )
    except duckdb.Error as error:
        raise DeclarationError(
            f"Pipeline {pipeline.spec.name}: gates.decision {decision!r} fails on a row scored by {model.version}: "
            f"{error}"
        ) from error
    return {
        key: f"{model.version} would not score it: {text}" for key, text in (scoring.failed | scoring.blocked).items()
    }


def _compare(con: DuckDBPyConnection, pipeline: Pipeline, manifest: Manifest, *, first: bool) -> None:
    """Append the rows of both to `REPLAYED`; outputs are compared by position, their names were compared before."""
    key = pipeline.spec.features.key
    outputs = range(len(manifest.outputs))
    on = " AND ".join(f"{{0}}.{quote(name)} = a.{quote(name)}" for name in ("partition_key", *key))
    selected = [
        "a.partition_key",
        f"concat_ws(', ', {quote_all(key, 'a.')}) AS pip_key",
        *(f"a.{quote(name)}" for name in key),
        *(f"a.{quote(manifest.outputs[i])} AS pip_champion_{i}" for i in outputs),
        *(f"b.{quote(manifest.outputs[i])} AS pip_candidate_{i}" for i in outputs),
        "a.pip_decision AS pip_champion_decision, b.pip_decision AS pip_candidate_decision",
        "b.partition_key IS NOT NULL AS pip_seen",
        *(f"f.{quote(name)}::VARCHAR AS pip_segment_{i}" for i, name in enumerate(pipeline.gates.segments)),
        *(f"f.{quote(name)}" for name in pipeline.label_key if name not in key),
    ]
    verb = f"CREATE OR REPLACE TABLE {REPLAYED} AS" if first else f"INSERT INTO {REPLAYED}"
    con.execute(
        f"{verb} SELECT {', '.join(selected)} FROM memory.pip_stage.by_champion a "
        f"LEFT JOIN memory.pip_stage.by_candidate b ON {on.format('b')} LEFT JOIN {STAGED} f ON {on.format('f')}"
    )
