"""The limit of a canary by late labels: its stored scores of past partitions beside the champion's.

Both have scored every row, so that the comparison is paired, whoever decided. Labels arrive late: what they show is
about the canary and not about the partition of a run. A run judges the oldest 4, 8, 16, … partitions that both scored
and whose labels are complete (`statistics.interim`). A stop is in the ledger before any arm is decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.canary import Stop, record_stop, stored_side
from pip_dagster.flow.compared import unit_of
from pip_dagster.flow.label_metric import label_metric
from pip_dagster.flow.label_window import LabelWindow, label_key_error, label_window
from pip_dagster.flow.paired_rows import paired_rows, paired_select
from pip_dagster.flow.result import PartitionResult
from pip_dagster.flow.run import Run
from pip_dagster.flow.stage import keep, stored_columns
from pip_dagster.ledger.canary import events, stopped
from pip_dagster.ledger.live_partitions import LivePartition, Revision
from pip_dagster.ledger.record import ScoringEntry
from pip_dagster.quoted import said
from pip_dagster.sql.names import among, quote, quote_all
from pip_dagster.statistics.agreement import paired_columns
from pip_dagster.statistics.interim import FIRST, Interim
from pip_dagster.statistics.judge import GateVerdict, Rule, judge
from pip_dagster.statistics.wording import describe_interim
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.interrupts import raise_if_interrupted
from pip_dagster.warehouse.transaction import transaction
from pip_dagster.warehouse.windows import in_windows

if TYPE_CHECKING:
    from pip_dagster.registry.manifest import Manifest

METRIC = "metric"
# Partitions that both versions scored from the same features, since the canary was resumed; the champion's is live.
_PAIRS = """
  SELECT s.partition_key, s.partition_start, s.partition_end, s.scoring_id, s.table_name, s.rows_scored,
         s.feature_revision, e.table_name, a.scoring_id, a.table_name
  FROM ledger.live l JOIN ledger.scorings s ON s.scoring_id = l.scoring_id
  JOIN ledger.scorings a ON a.pipeline = s.pipeline AND a.partition_key = s.partition_key
    AND a.feature_revision = s.feature_revision
  JOIN ledger.extractions e ON e.pipeline = s.pipeline AND e.partition_key = s.partition_key
    AND e.revision = s.feature_revision
  WHERE l.pipeline = $pipeline AND s.model_name = $model AND s.model_version = $champion AND s.rows_scored > 0
    AND s.purged_at IS NULL
    AND a.role = 'arm' AND a.status = 'scored' AND a.model_name = $model AND a.model_version = $version
    AND a.scoring_id > $since
  QUALIFY row_number() OVER (PARTITION BY s.partition_key ORDER BY a.scoring_id DESC) = 1
  ORDER BY s.partition_start
"""


@dataclass(frozen=True)
class _Pair:
    """A partition with the champion's scoring, and the arm's scoring of the same rows."""

    live: LivePartition
    arm_scoring: str
    arm_table: str


def judge_by_labels(
    run: Run, manifest: Manifest, results: Sequence[PartitionResult]
) -> list[tuple[str, bool | None, str]]:
    """The check of each arm that is not stopped: its name, whether it is passed, and why.

    An arm that fails is stopped when this returns. Where labels cannot be read it is not stopped, and the check is
    None with the reason.

    Raises:
        WarehouseError: a stop cannot be stored.
    """
    experiment = run.pipeline.spec.scoring.canary
    if experiment is None or experiment.gate.labels is None:
        return []
    arms: dict[str, ScoringEntry] = {}
    for result in results:
        for arm, entry in result.arms.items():
            if entry.status == "scored":
                arms.setdefault(arm, entry)
    checks: list[tuple[str, bool | None, str]] = []
    stops: list[tuple[str, Stop]] = []
    for arm, entry in arms.items():
        try:
            found = _judge(run, manifest, arm, entry)
        except Exception as error:
            raise_if_interrupted(error)
            # The champion's partitions are committed; an arm whose labels are missing has its other limits.
            checks.append((f"{METRIC} {arm}", None, f"labels cannot judge it: {' '.join(said(error).split())}"))
            continue
        if found is None:
            continue
        checks.append((f"{METRIC} {arm}", found.stop is None, found.text))
        if found.stop:
            stops.append((found.last, found.stop))

    def record(item: tuple[str, Stop]) -> None:
        with transaction(run.con):
            if not stopped(run.con, run.pipeline.spec.name, item[1].arm, item[1].model):
                record_stop(run, *item)

    in_windows(run.con, run.pipeline.project, stops, record, purpose=f"{run.pipeline.spec.name}: stopping a canary")
    return checks


@dataclass(frozen=True)
class _Found:
    """What the labels show of an arm; `last` is the newest partition that they are of."""

    text: str
    stop: Stop | None = None
    last: str = ""


def _judge(run: Run, manifest: Manifest, arm: str, entry: ScoringEntry) -> _Found | None:
    """The newest analysis of an arm; None where it is stopped."""
    con, pipeline = run.con, run.pipeline
    experiment = pipeline.spec.scoring.canary
    assert experiment and experiment.gate.labels
    labels, gates, name = experiment.gate.labels, pipeline.gates, pipeline.spec.name
    metric, model = label_metric(pipeline, manifest, labels), (entry.model_name, entry.model_version or 0)
    with writing(con, pipeline.project, purpose=f"{name}: reading the canary's scorings", publish=False):
        if stopped(con, name, arm, model):
            return None
        pairs = _pairs(run, manifest, arm, entry)
    if len(pairs) < FIRST:
        both = f"{arm} (v{entry.model_version}) and the champion (v{manifest.version})"
        return _Found(f"not judged yet: {both} have both scored {len(pairs)} of {FIRST} partitions")
    run.progress(f"{name}: labels of {arm}, {pipeline.labels.outcome if pipeline.labels else ''}")
    window = label_window(con, pipeline, manifest, [pair.live for pair in pairs])
    complete = _complete(pairs, window)
    interim = Interim.at(complete)
    if interim is None:
        return _Found(f"not judged yet: labels of {complete} of {FIRST} partitions are complete")
    judged = pairs[: interim.partitions]
    if complete > interim.partitions:
        window = label_window(con, pipeline, manifest, [pair.live for pair in judged])
    rule = Rule(
        labels.max_loss if labels.max_loss is not None else gates.max_loss,
        interim.confidence(labels.confidence if labels.confidence is not None else gates.confidence),
    )
    outputs = len(manifest.outputs)
    columns: Mapping[str, Any] = {}
    if window.partitions:
        relation = _labelled(run, manifest, judged, window)
        columns = con.execute(f"SELECT {paired_select(outputs)}, pip_outcome FROM {relation}").fetchnumpy()
    try:
        verdict = judge(metric, paired_rows(columns, outputs), rule)
    except DeclarationError as error:
        raise DeclarationError(f"Pipeline {name}: {error}") from error
    text = f"analysis {interim.number}, of {interim.partitions} partitions: {describe_interim(verdict)}; {window.text}"
    if verdict.state == "refused":
        stop = Stop(arm, model, f"{METRIC}: {text}", {METRIC: _figures(metric, interim, verdict, window)})
        return _Found(text, stop, window.partitions[-1].key)
    unjudged = "not judged: " if verdict.state == "unjudged" else ""
    return _Found(f"{unjudged}{text}; the next is of {interim.next} partitions, {complete} have their labels")


def _pairs(run: Run, manifest: Manifest, arm: str, entry: ScoringEntry) -> list[_Pair]:
    """The partitions, oldest first, that the arm scored since it was resumed. The warehouse is the current catalog."""
    name = run.pipeline.spec.name
    resumed = [
        event.event_id
        for event in events(run.con, name)
        if (event.alias, *event.model, event.action) == (arm, entry.model_name, entry.model_version, "resumed")
    ]
    values = {"pipeline": name, "champion": manifest.version, "since": resumed[-1] if resumed else ""}
    values |= {"model": entry.model_name, "version": entry.model_version}
    rows = run.con.execute(_PAIRS, values).fetchall()
    return [_Pair(LivePartition(*(*row[:6], (Revision(*row[6:8]),))), *row[8:]) for row in rows]


def _complete(pairs: Sequence[_Pair], window: LabelWindow) -> int:
    """How many of the partitions are not newer than those whose labels are complete."""
    return sum(pair.live.start <= window.partitions[-1].start for pair in pairs) if window.partitions else 0


def _labelled(run: Run, manifest: Manifest, pairs: Sequence[_Pair], window: LabelWindow) -> str:
    """The relation of the rows that both scored and that have a label."""
    import duckdb

    wanted = {each.key for each in window.partitions}
    chosen = sorted((pair for pair in pairs if pair.live.key in wanted), key=_tables)
    relation = ""
    purpose = f"{run.pipeline.spec.name}: reading the canary's scores"
    with writing(run.con, run.pipeline.project, purpose=purpose, publish=False):
        for tables, group in groupby(chosen, key=_tables):
            select = _paired(run, manifest, tables, list(group), window.relation)
            try:
                relation = keep(run.con, "canary_labels", select, more=bool(relation))
            except duckdb.Error as error:
                raise label_key_error(run.pipeline, error) from error
    return relation


def _tables(pair: _Pair) -> tuple[str, str, str]:
    return pair.live.scores_table, pair.arm_table, pair.live.revisions[0].table


def _paired(run: Run, manifest: Manifest, tables: tuple[str, str, str], pairs: Sequence[_Pair], labels: str) -> str:
    """SQL of the labelled rows of partitions that are in the same tables, as `statistics.agreement` reads them."""
    con, pipeline = run.con, run.pipeline
    ids = ([pair.live.scoring_id for pair in pairs], [pair.arm_scoring for pair in pairs])
    a, b = (stored_side(con, pipeline, manifest, *each) for each in zip(tables[:2], ids, strict=True))
    columns, key = stored_columns(con, pipeline.spec.name, tables[2]), pipeline.spec.features.key
    unit = unit_of(pipeline, columns)
    if missing := [name for name in (*unit, *pipeline.label_key) if name not in columns]:
        raise DeclarationError(
            f"The unit or {pipeline.labels_name}.key names {', '.join(missing)}, which the stored features do not "
            f"have; they have {', '.join(columns)}."
        )

    def same(other: str, left: str, names: Sequence[str]) -> str:
        return " AND ".join(f"{other}.{quote(name)} = {left}.{quote(name)}" for name in ("partition_key", *names))

    known = " AND ".join(f"f.{quote(name)} IS NOT NULL" for name in unit)
    values = ", ".join(f"f.{quote(name)}::VARCHAR" for name in unit)
    features = f"{quote(pipeline.spec.name)}.{quote(tables[2])}"
    revisions = among("f.revision", [pair.live.revisions[0].revision for pair in pairs])
    return (
        f"SELECT a.partition_key, concat_ws(', ', {quote_all(key, 'a.')}) AS pip_key, "
        f"{paired_columns(a.outputs, b.outputs)}, CASE WHEN {known} THEN to_json([{values}])::VARCHAR END AS pip_unit, "
        f"l.pip_outcome FROM ({a.sql}) a JOIN ({b.sql}) b ON {same('b', 'a', key)} "
        f"JOIN {features} f ON {revisions} AND {same('f', 'a', key)} "
        f"JOIN {labels} l ON {same('l', 'f', pipeline.label_key)}"
    )


def _figures(metric: str, interim: Interim, verdict: GateVerdict, window: LabelWindow) -> Mapping[str, Any]:
    """What the ledger keeps of a stop."""
    found, allowed = verdict.gain, verdict.margin
    assert found and allowed
    measured = {name: getattr(found, name) for name in ("champion", "candidate", "low", "high")}
    counts = {"rows": verdict.rows, "units": verdict.units, "partitions": len(window.partitions)}
    figure = {"figure": found.gain, "threshold": -allowed.value, "metric": metric}
    return figure | measured | counts | {"analysis": interim.number, "confidence": verdict.rule.confidence}
