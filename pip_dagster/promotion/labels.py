"""Gates on what came of the scored rows: the candidate is not worse than the champion, overall and in any segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.label_window import LabelWindow, label_key_error
from pip_dagster.flow.paired_rows import UNIT, paired_rows, paired_select
from pip_dagster.flow.stage import keep
from pip_dagster.promotion.rescore import Rescored
from pip_dagster.sql.names import quote
from pip_dagster.statistics.agreement import segment_value
from pip_dagster.statistics.gate_result import GateResult
from pip_dagster.statistics.interval import Gain, PairedRows
from pip_dagster.statistics.judge import GateVerdict, Rule, State, judge
from pip_dagster.statistics.planning import labels_needed_before
from pip_dagster.statistics.segments import SegmentsVerdict, SegmentVerdict, judge_segments
from pip_dagster.statistics.wording import describe, describe_segments

if TYPE_CHECKING:
    import numpy as np
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.gates import Gates, MetricName
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.manifest import Manifest

# Rows from which the need for labels is estimated; whole units are drawn.
_PLANNED = 20_000


@dataclass(frozen=True)
class Labelled:
    """Rows with an outcome; `segments` holds each segment's values, and for each row which it has.

    `unscored`: labelled rows that the candidate does not score.
    """

    rows: PairedRows
    segments: Mapping[str, tuple[Sequence[str], np.ndarray]]
    unscored: int = 0


def label_gates(
    con: DuckDBPyConnection,
    pipeline: Pipeline,
    manifest: Manifest,
    metric: MetricName,
    found: LabelWindow,
    rescored: Rescored,
) -> list[GateResult]:
    """The metric overall, and in each segment, on the rescored rows that have a label.

    Raises:
        DeclarationError: an outcome is not what the metric is for, or the labels' key cannot be compared.
    """
    gates = pipeline.gates
    rule = Rule(gates.max_loss, gates.confidence, gates.strict)
    labelled = _read(con, pipeline, manifest, rescored, found)
    try:
        verdict = judge(metric, labelled.rows, rule)
    except DeclarationError as error:
        raise DeclarationError(f"Pipeline {pipeline.spec.name}: {error}") from error
    need = None
    if verdict.needed is None and verdict.state == "unjudged":
        replayed = _replayed(con, manifest, rescored)
        need = labels_needed_before(metric, replayed, rule, noise=manifest.metrics.get("rmse"))
    text = f"{describe(verdict)}; {found.text}"
    if need is not None:
        text += f"; about {need.rows:,} labelled rows of at least {need.units} units are needed"
    if labelled.unscored:
        text += f"; {labelled.unscored:,} labelled rows that the candidate does not score are left out"
    if rescored.left_out:
        text += f"; {len(rescored.left_out):,} labelled partitions are left out: {rescored.left_out[0]}"
    results = [_result("metric", verdict, gates, text, _details(metric, verdict))]
    if gates.segments:
        allowed = verdict.margin.value if verdict.margin else 0.0
        of = judge_segments(metric, labelled.rows, labelled.segments, allowed, rule)
        results.append(_segments(metric, of, gates))
    return results


def nothing_to_compare(gates: Gates) -> list[GateResult]:
    """The label gates where no partition is live: there are no rows whose labels could judge."""
    text = "no partition is live, so there are no rows to compare; materialize partitions first"
    names = ["metric", *(["segment_metric"] if gates.segments else [])]
    return [GateResult(name, gates.unjudged == "pass", None, None, text, judged=False) for name in names]


def _judgement(state: State, gates: Gates) -> tuple[bool, bool]:
    """Whether a gate was judged, and whether it is passed; one that was not is as declared."""
    return state != "unjudged", state == "passed" or (state == "unjudged" and gates.unjudged == "pass")


def _result(name: str, verdict: GateVerdict, gates: Gates, text: str, details: Mapping[str, Any]) -> GateResult:
    judged, passed = _judgement(verdict.state, gates)
    figure = verdict.gain.gain if verdict.gain else None
    margin = -verdict.margin.value if verdict.margin else None
    return GateResult(name, passed, figure, margin, text, details, judged)


def _segments(metric: str, of: SegmentsVerdict, gates: Gates) -> GateResult:
    judged, passed = _judgement(of.state, gates)
    text = describe_segments(of)
    if seen := sorted(each.detectable for each in of.judged if each.detectable is not None):
        text += f"; a loss of {seen[0]:.4f} to {seen[-1]:.4f} in one of them, {median(seen):.4f} in the median, is "
        text += "refused with a probability of 80%"
    details = {"metric": metric, "segments": [_segment(each) for each in of.segments]}
    worst = min((each.gain.gain for each in of.judged if each.gain), default=None)
    return GateResult("segment_metric", passed, worst, -of.allowed if of.allowed else None, text, details, judged)


def _segment(each: SegmentVerdict) -> dict[str, Any]:
    shown = {"segment": each.column, "value": each.value, "state": each.state, "reason": each.reason}
    counts = {"rows": each.rows, "outcomes": each.outcomes, "units": each.units}
    return shown | counts | _figures(each.gain) | {"p": each.p, "detectable": each.detectable}


def _details(metric: str, verdict: GateVerdict) -> dict[str, Any]:
    counts = {"rows": verdict.rows, "outcomes": verdict.outcomes, "units": verdict.units}
    margin = verdict.margin and {"margin": verdict.margin.value, "excess": verdict.margin.excess}
    state = {"metric": metric, "state": verdict.state, "reason": verdict.reason}
    power = {"detectable": verdict.detectable, "needed": verdict.needed}
    return state | counts | _figures(verdict.gain) | (margin or {}) | power


def _figures(gain: Gain | None) -> dict[str, Any]:
    if gain is None:
        return {}
    names = ("champion", "candidate", "gain", "low", "high", "se")
    spread = {"days": gain.spread.days, "df": gain.spread.df, "effective_rows": gain.spread.effective_rows}
    return {name: getattr(gain, name) for name in names} | spread


def _read(
    con: DuckDBPyConnection, pipeline: Pipeline, manifest: Manifest, rescored: Rescored, found: LabelWindow
) -> Labelled:
    """The rescored rows with a label."""
    import duckdb
    import numpy as np

    outputs = len(manifest.outputs)
    if not found.partitions:
        return Labelled(
            paired_rows({}, outputs),
            {name: ([], np.zeros(0, np.int64)) for name in pipeline.gates.segments},
        )
    on = " AND ".join(f"l.{quote(name)} = r.{quote(name)}" for name in ("partition_key", *pipeline.label_key))
    try:
        labelled = keep(
            con, "labelled", f"SELECT r.*, l.pip_outcome FROM {rescored.relation} r JOIN {found.relation} l ON {on}"
        )
    except duckdb.Error as error:
        raise label_key_error(pipeline, error) from error
    seen = f"(FROM {labelled} WHERE pip_seen)"
    segments = range(len(pipeline.gates.segments))
    # Numbers instead of texts: a row of millions is then some bytes in Python.
    codes = [segment_value(i) for i in segments]
    ranks = "".join(f", dense_rank() OVER (ORDER BY {code}) - 1 AS c{i}" for i, code in enumerate(codes))
    columns = con.execute(f"SELECT {paired_select(outputs)}, pip_outcome{ranks} FROM {seen}").fetchnumpy()
    values = [con.execute(f"SELECT DISTINCT {code} AS v FROM {seen} ORDER BY v").fetchall() for code in codes]
    unscored = con.execute(f"SELECT count(*) FROM {labelled} WHERE NOT pip_seen").fetchone()
    return Labelled(
        paired_rows(columns, outputs),
        {
            name: ([row[0] for row in values[i]], np.asarray(columns[f"c{i}"]))
            for i, name in enumerate(pipeline.gates.segments)
        },
        unscored[0] if unscored else 0,
    )


def _replayed(con: DuckDBPyConnection, manifest: Manifest, rescored: Rescored) -> PairedRows:
    """The newest partitions' rows of some units, as many as are planned for, without outcomes."""
    row = con.execute(f"SELECT count(*) FROM {rescored.newest}").fetchone()
    outputs = len(manifest.outputs)
    every = max(1, (row[0] if row else 0) // _PLANNED)
    columns = con.execute(
        f"SELECT {paired_select(outputs)} FROM {rescored.newest} WHERE pip_seen AND hash({UNIT}) % {every} = 0"
    ).fetchnumpy()
    return paired_rows(columns, outputs)
