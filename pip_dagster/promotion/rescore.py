"""The newest live partitions scored again by candidate and champion, on the same rows, side by side in one table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.compared import Side, side, unit_of
from pip_dagster.flow.findings import ScoringPolicy
from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.flow.label_window import LabelWindow, label_key_error
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.score import score
from pip_dagster.flow.stage import Stage, keep
from pip_dagster.ledger.live_partitions import LivePartition, Revision
from pip_dagster.plural import plural
from pip_dagster.promotion.stored import Stored, load
from pip_dagster.quoted import said
from pip_dagster.sql.names import among, quote, quote_all
from pip_dagster.statistics.agreement import paired_columns
from pip_dagster.statistics.gate_result import GateResult

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline


@dataclass(frozen=True)
class Rescored:
    """What was rescored; `relation` has a row for each live row, as `statistics.agreement` reads it.

    `pip_newest` is false in rows that are there for their labels only, of partitions before the newest; the other
    figures are without those. `left_out`: why partitions with labels could not be rescored. `sides`: champion and
    candidate.
    """

    partitions: tuple[LivePartition, ...] = ()
    rows: int = 0
    lost: int = 0
    problems: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    sides: tuple[Side, Side] = (Side(), Side())
    relation: str = ""

    @property
    def decision(self) -> str | None:
        """The champion's decision, which names it in texts."""
        return self.sides[0].decision

    @property
    def newest(self) -> str:
        """The relation of the newest partitions' rows."""
        return f"(FROM {self.relation} WHERE pip_newest)"


@dataclass(frozen=True)
class Replayed:
    """What to rescore: all rows of the `newest` partitions (keys), and those of the others that have a label."""

    stored: Stored
    newest: frozenset[str]
    labels: str = ""

    @classmethod
    def of(cls, stored: Stored, last: int, labelled: LabelWindow) -> Replayed:
        """The `last` newest partitions, and those of `labelled`."""
        newest = frozenset(each.key for each in stored.partitions[-last:])
        wanted = newest | {each.key for each in labelled.partitions}
        partitions = tuple(each for each in stored.partitions if each.key in wanted)
        return cls(replace(stored, partitions=partitions), newest, labelled.relation)


def rescore(
    stage: Stage,
    pipeline: Pipeline,
    wanted: Replayed,
    candidate: ScoringModel,
    champion: ScoringModel,
    progress: Callable[[str], None],
) -> Rescored:
    """Score the live rows with both, by the features of their scoring, or newer ones if only those fit.

    The features of the last feature table stay staged, for measuring throughput.

    Raises:
        DeclarationError: a segment, unit or label key is not a column of the features, or the decision is not an
            expression over the scored row.
    """
    groups, faults = _groups(wanted.stored, (candidate, champion))
    rescored: list[LivePartition] = []
    relation, sides = "", (Side(), Side())
    for table, chosen in groups.items():
        if absent := _absent(pipeline, wanted.stored.columns[table]):
            if any(partition.key in wanted.newest for partition in chosen):
                raise DeclarationError(f"Pipeline {pipeline.spec.name}: {absent}")
            faults |= {partition.key: absent for partition in chosen}
            continue
        keys = [partition.key for partition in chosen]
        progress(f"replaying {keys[0]} to {keys[-1]} with {candidate.version} and {champion.version}")
        load(stage, pipeline, table, chosen)
        _remove_unlabelled(stage, pipeline, wanted, keys)
        old, by_champion, refused = _scored_by(champion, "champion", stage, pipeline, keys)
        new, by_candidate, others = _scored_by(candidate, "candidate", stage, pipeline, keys)
        faults |= refused | others
        sides = (old, new)
        select = _paired(stage, pipeline, wanted.newest, (old, by_champion), (new, by_candidate))
        relation = keep(stage.con, "rescored", select, more=bool(rescored))
        rescored.extend(chosen)
    named = [(key, f"{key}: {text}") for key, text in sorted(faults.items())]
    problems = tuple(text for key, text in named if key in wanted.newest)
    left_out = tuple(text for key, text in named if key not in wanted.newest)
    if not rescored:
        return Rescored(problems=problems, left_out=left_out)
    counted = stage.con.execute(
        f"SELECT count(*), count(*) FILTER (NOT pip_seen) FROM {relation} WHERE pip_newest"
    ).fetchone()
    newest = tuple(partition for partition in rescored if partition.key in wanted.newest)
    rows, lost = counted or (0, 0)
    return Rescored(newest, rows, lost, problems, left_out, sides, relation)


def replay_gate(rescored: Rescored, candidate: str) -> GateResult:
    """Whether the candidate scores every row that is live; without it no other comparison is whole."""
    share = rescored.lost / rescored.rows if rescored.rows else 1.0
    passed = not rescored.problems and not rescored.lost
    keys = [partition.key for partition in rescored.partitions]
    span = f"{plural(len(keys), 'partition')}, {keys[0]} to {keys[-1]}" if keys else "no partition"
    text = f"{rescored.rows - rescored.lost:,} of {rescored.rows:,} live rows scored by {candidate} ({span})"
    text += "".join(f"; {problem}" for problem in rescored.problems)
    return GateResult("replay", passed, share, 0.0, text, {"partitions": keys, "problems": list(rescored.problems)})


def _absent(pipeline: Pipeline, columns: Mapping[str, str]) -> str | None:
    """Which declared columns stored features do not have; None: they have all."""
    gates = pipeline.gates
    unit = "gates.unit" if gates.unit else f"{pipeline.labels_name}.unit"
    named = (
        ("gates.segments", gates.segments),
        (unit, pipeline.unit),
        (f"{pipeline.labels_name}.key", pipeline.label_key),
    )
    for key, names in named:
        if absent := [name for name in names if name not in columns]:
            return (
                f"{key} names {', '.join(map(repr, absent))}, which the stored features do not have; they have "
                f"{', '.join(columns)}."
            )
    return None


def _remove_unlabelled(stage: Stage, pipeline: Pipeline, wanted: Replayed, keys: Sequence[str]) -> None:
    """Of partitions before the newest, only rows with a label are worth scoring."""
    import duckdb

    older = [key for key in keys if key not in wanted.newest]
    if not older:
        return
    on = " AND ".join(f"l.{quote(name)} = f.{quote(name)}" for name in ("partition_key", *pipeline.label_key))
    try:
        stage.remove(f"{among('f.partition_key', older)} AND NOT EXISTS (SELECT 1 FROM {wanted.labels} l WHERE {on})")
    except duckdb.Error as error:
        raise label_key_error(pipeline, error) from error


def _groups(
    stored: Stored, models: Sequence[ScoringModel]
) -> tuple[dict[str, dict[LivePartition, Revision]], dict[str, str]]:
    """The partitions by feature table, each with the first revision that fits both models; and those without one."""
    misfits = {table: _misfit(columns, models) for table, columns in stored.columns.items()}
    groups: dict[str, dict[LivePartition, Revision]] = {}
    problems: dict[str, str] = {}
    for partition in stored.partitions:
        fitting = [revision for revision in partition.revisions if misfits[revision.table] is None]
        if fitting:
            groups.setdefault(fitting[0].table, {})[partition] = fitting[0]
        else:
            problems[partition.key] = misfits[partition.revisions[-1].table] or ""
    return groups, problems


def _misfit(columns: dict[str, str], models: Sequence[ScoringModel]) -> str | None:
    try:
        for model in models:
            encode_model(model.version.manifest, columns, where=str(model.version))
    except DeclarationError as error:
        return str(error)
    return None


def _scored_by(
    model: ScoringModel, role: str, stage: Stage, pipeline: Pipeline, keys: Sequence[str]
) -> tuple[Side, str, dict[str, str]]:
    """The staged rows scored as production would, and their relation; and the partitions that it would refuse."""
    import duckdb

    stage.admit_all()
    spec, manifest = pipeline.spec, model.version.manifest
    # Features from before a split need not have its unit.
    policy = replace(ScoringPolicy.declared(spec), carried=(*spec.features.key, spec.features.partition_column))
    scores = score(stage, spec, model.predictor, manifest, keys, policy)
    of_model = side(pipeline, manifest, scores.columns, stage.scores, f"the row scored by {model.version}")
    try:
        relation = keep(stage.con, f"by_{role}", of_model.sql)
    except duckdb.Error as error:
        raise DeclarationError(
            f"Pipeline {spec.name}: gates.decision {of_model.decision!r} fails on a row scored by {model.version}: "
            f"{said(error)}"
        ) from error
    refused = scores.failed | scores.blocked
    return of_model, relation, {key: f"{model.version} would not score it: {text}" for key, text in refused.items()}


def _paired(
    stage: Stage,
    pipeline: Pipeline,
    newest: Collection[str],
    champion: tuple[Side, str],
    candidate: tuple[Side, str],
) -> str:
    """SQL of the rows of both, as `statistics.agreement` reads them, with the columns of a label's key and of the unit.

    The names of the outputs were compared before.
    """
    key = pipeline.spec.features.key
    on = " AND ".join(f"{{0}}.{quote(name)} = a.{quote(name)}" for name in ("partition_key", *key))
    unit = [f"f.{quote(name)}" for name in unit_of(pipeline, stage.columns)]
    known = " AND ".join(f"{name} IS NOT NULL" for name in unit)
    values = ", ".join(f"{name}::VARCHAR" for name in unit)
    selected = [
        "a.partition_key",
        f"{among('a.partition_key', newest)} AS pip_newest",
        f"concat_ws(', ', {quote_all(key, 'a.')}) AS pip_key",
        *(f"a.{quote(name)}" for name in key),
        paired_columns(champion[0].outputs, candidate[0].outputs),
        "b.partition_key IS NOT NULL AS pip_seen",
        *(f"f.{quote(name)}::VARCHAR AS pip_segment_{i}" for i, name in enumerate(pipeline.gates.segments)),
        *(f"f.{quote(name)}" for name in pipeline.label_key if name not in key),
        f"CASE WHEN {known} THEN to_json([{values}])::VARCHAR END AS pip_unit",
    ]
    return (
        f"SELECT {', '.join(selected)} FROM {champion[1]} a LEFT JOIN {candidate[1]} b ON {on.format('b')} "
        f"LEFT JOIN {stage.features} f ON {on.format('f')}"
    )
