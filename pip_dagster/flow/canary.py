"""The gate of a canary: its scores beside the champion's, both stored, on the same rows of one partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.canonical import canonical
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.compared import Side, distribution_gate, side
from pip_dagster.flow.run import Run
from pip_dagster.flow.stage import keep, stored_columns
from pip_dagster.ledger.canary import CanaryEvent, record_event
from pip_dagster.plural import plural
from pip_dagster.quoted import said
from pip_dagster.sql.names import among, literal, quote
from pip_dagster.statistics.agreement import flip_gate, paired_columns
from pip_dagster.statistics.gate_result import GateResult
from pip_dagster.statistics.segment_agreement import segment_flip_gate, segment_psi_gate

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.ledger.record import ScoringEntry
    from pip_dagster.registry.manifest import Manifest


@dataclass(frozen=True)
class Stop:
    """An arm that failed its gate, with the figures and thresholds of it."""

    arm: str
    model: tuple[str, int]
    why: str
    figures: Mapping[str, Any]


def judge(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    manifest: Manifest,
    champion: ScoringEntry,
    arm: ScoringEntry,
) -> list[GateResult]:
    """Each limit with its figure, on rows that both scored. The warehouse is the current catalog, not in transaction.

    Raises:
        DeclarationError: `gates.decision` is not an expression over the stored row.
    """
    canary, rows = pipeline.spec.scoring.canary, champion.rows_scored or 0
    assert canary
    gate = canary.gate
    if rows < gate.min_rows:
        text = f"{plural(rows, 'row')}, fewer than gate.min_rows, {gate.min_rows}: it is not judged on this partition"
        return [GateResult("score_psi", True, None, gate.max_score_psi, text, judged=False)]
    paired, sides = _side_by_side(con, pipeline, manifest, (champion, arm))
    found = [distribution_gate(con, paired, sides, gate.max_score_psi, gate.min_rows)]
    if sides[0].decision:
        found.insert(0, flip_gate(con, paired, sides[0].decision, gate.max_flip_rate))
    if gate.max_mean_shift is not None and sides[0].calibrated == sides[1].calibrated:
        found.append(_mean_shift(con, paired, sides[0].outputs[0], gate.max_mean_shift))
    if gate.segments:
        flips, psi = gate.segment_limits
        if sides[0].decision:
            found.append(segment_flip_gate(con, paired, gate.segments, flips, gate.min_rows))
        if sides[0].calibrated == sides[1].calibrated:
            found.append(segment_psi_gate(con, paired, (gate.segments, sides[0].outputs), psi, gate.min_rows))
    return found


def say_stop(arm: str, entry: ScoringEntry, failed: Sequence[GateResult]) -> Stop:
    """The stop that these failed limits mean."""
    figures = {each.name: {"figure": each.figure, "threshold": each.threshold} for each in failed}
    why = "; ".join(f"{each.name}: {each.text}" for each in failed)
    return Stop(arm, (entry.model_name, entry.model_version or 0), why, figures)


def record_stop(run: Run, partition_key: str, stop: Stop) -> None:
    """Append a stop to the ledger. Call it inside a transaction on the warehouse."""
    event = CanaryEvent(
        pipeline=run.pipeline.spec.name,
        partition_key=partition_key,
        alias=stop.arm,
        model_name=stop.model[0],
        model_version=stop.model[1],
        action="stopped",
        why=stop.why,
        figures=canonical(stop.figures),
        run_id=run.info.run_id,
        made_by=run.info.made_by,
    )
    record_event(run.con, event)


def stored_side(
    con: DuckDBPyConnection, pipeline: Pipeline, manifest: Manifest, table: str, scoring_ids: Sequence[str]
) -> Side:
    """What to compare of the rows of scorings that one table has. The warehouse is the current catalog."""
    name = f"{quote(pipeline.spec.name)}.{quote(table)}"
    columns = {name: kind for name, kind, *_ in con.execute(f"DESCRIBE {name}").fetchall() if name != "scoring_id"}
    rows = f"(SELECT * FROM {name} WHERE {among('scoring_id', scoring_ids)})"
    return side(pipeline, manifest, columns, rows, "the stored scores")


def _side_by_side(
    con: DuckDBPyConnection, pipeline: Pipeline, manifest: Manifest, entries: tuple[ScoringEntry, ScoringEntry]
) -> tuple[str, tuple[Side, Side]]:
    """The relation of the rows that both scorings, a champion's and an arm's, have stored; and what is compared."""
    import duckdb

    a, b = (stored_side(con, pipeline, manifest, each.table_name or "", [each.scoring_id]) for each in entries)
    same = " AND ".join(f"a.{quote(name)} = b.{quote(name)}" for name in pipeline.spec.features.key)
    unit = ", ".join(f"a.{quote(name)}::VARCHAR" for name in pipeline.spec.unit)
    outputs = f"{paired_columns(a.outputs, b.outputs)}, to_json([{unit}])::VARCHAR AS pip_unit"
    segments, features = _segments(con, pipeline, entries[0])
    select = f"SELECT true AS pip_seen, {outputs}{segments} FROM ({a.sql}) a JOIN ({b.sql}) b ON {same}{features}"
    try:
        return keep(con, "side_by_side", select), (a, b)
    except duckdb.Error as error:
        raise DeclarationError(
            f"Pipeline {pipeline.spec.name}: gates.decision {a.decision!r} fails on a stored row: {said(error)}"
        ) from error


def _segments(con: DuckDBPyConnection, pipeline: Pipeline, champion: ScoringEntry) -> tuple[str, str]:
    """SQL of the segments' columns `pip_segment_<i>`, and of the join with the features that were scored."""
    spec = pipeline.spec
    canary = spec.scoring.canary
    if not canary or not canary.gate.segments:
        return "", ""
    row = con.execute(
        "SELECT table_name FROM ledger.extractions WHERE pipeline = $p AND revision = $r LIMIT 1",
        {"p": spec.name, "r": champion.feature_revision},
    ).fetchone()
    there = stored_columns(con, spec.name, row[0]) if row else {}
    if missing := [name for name in canary.gate.segments if name not in there]:
        raise DeclarationError(
            f"Pipeline {spec.name}: scoring.canary.gate.segments names {', '.join(missing)}; expected feature columns, "
            f"which are {', '.join(there)}."
        )
    columns = "".join(f", f.{quote(name)}::VARCHAR AS pip_segment_{i}" for i, name in enumerate(canary.gate.segments))
    same = " AND ".join(f"f.{quote(name)} = a.{quote(name)}" for name in spec.features.key)
    table = f"{quote(spec.name)}.{quote(row[0] if row else '')}"
    return columns, f" LEFT JOIN {table} f ON f.revision = {literal(champion.feature_revision or '')} AND {same}"


def _mean_shift(con: DuckDBPyConnection, paired: str, output: str, most: float) -> GateResult:
    row = con.execute(
        f"SELECT avg(pip_champion_0), avg(pip_candidate_0), stddev_pop(pip_champion_0) FROM {paired}"
    ).fetchone()
    a, b, spread = row or (None, None, None)
    if a is None or b is None:
        return GateResult("mean_shift", True, None, most, "no row has a score")
    figure = abs(b - a) / spread if spread else (0.0 if a == b else float("inf"))
    text = (
        f"the mean of {output} is {b:.6g}, the champion's {a:.6g}: {figure:.3f} standard deviations; at most {most:g}"
    )
    return GateResult("mean_shift", figure <= most, figure, most, text, {"champion": a, "canary": b})
