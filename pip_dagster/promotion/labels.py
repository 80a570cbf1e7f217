"""Gates on what came of the scored rows: the candidate is not worse than the champion, overall and in any segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.query import sql_bounds
from pip_dagster.flow.sources import open_sources
from pip_dagster.flow.stage import keep
from pip_dagster.promotion.rescore import Rescored
from pip_dagster.promotion.stored import LivePartition
from pip_dagster.sql.names import literal, quote, quote_all
from pip_dagster.statistics.gate_result import GateResult
from pip_dagster.statistics.metrics import MetricComparison, compare, default_metric

if TYPE_CHECKING:
    import numpy as np
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.gates import Gates, MetricName
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.manifest import Manifest

_SAID = 3  # segments in a sentence; the report has all


@dataclass(frozen=True)
class Labelled:
    """Rows with an outcome: (rows,) each; `segments` holds each segment's values, and for each row which it has."""

    y: np.ndarray
    champion: np.ndarray
    candidate: np.ndarray
    segments: dict[str, tuple[list[str], np.ndarray]]


def label_gates(
    con: DuckDBPyConnection, pipeline: Pipeline, manifest: Manifest, rescored: Rescored
) -> list[GateResult]:
    """The metric overall, and in each segment, on the rescored rows that have a label.

    Raises:
        DeclarationError: the SQL cannot run, or its outcome is not what the metric is for.
        SourceError: a source cannot be read.
    """
    gates = pipeline.gates
    if len(manifest.outputs) != 1:
        raise DeclarationError(
            f"Pipeline {pipeline.spec.name}: gates.labels is for models with one score; {manifest.model_name} has "
            f"{', '.join(manifest.outputs)}. Leave gates.labels away; the other gates hold."
        )
    rows = _read(con, pipeline, rescored.relation, stage_labels(con, pipeline, rescored.partitions))
    metric = gates.metric or default_metric(manifest.task)
    overall = _overall(metric, rows, gates)
    return [overall, _by_segment(metric, rows, gates)] if gates.segments else [overall]


def _overall(metric: MetricName, rows: Labelled, gates: Gates) -> GateResult:
    found = compare(metric, rows.y, rows.champion, rows.candidate, gates.confidence)
    if found is None:
        text = f"{len(rows.y):,} of the replayed rows have a label, too few for {metric}: nothing is known against it"
        return GateResult("metric", True, None, gates.min_gain, text, {"rows": len(rows.y)})
    text = (
        f"{_say(metric, found)}, {gates.confidence:.0%} interval {found.low:+.4f} to {found.high:+.4f}; refused where "
        f"that lies below {gates.min_gain:+g}"
    )
    details = asdict(found) | {"metric": metric, "resampled": "rows"}
    return GateResult("metric", found.high >= gates.min_gain, found.gain, gates.min_gain, text, details)


def _by_segment(metric: MetricName, rows: Labelled, gates: Gates) -> GateResult:
    least = gates.min_segment_gain
    found: list[tuple[str, str, MetricComparison]] = []
    for name, (values, codes) in rows.segments.items():
        for code, value in enumerate(values):
            chosen = codes == code
            if chosen.sum() < gates.min_segment_rows:
                continue
            of = compare(metric, rows.y[chosen], rows.champion[chosen], rows.candidate[chosen], gates.confidence)
            if of is not None:
                found.append((name, value, of))
    found.sort(key=lambda each: each[2].gain)
    details: dict[str, Any] = {
        "metric": metric,
        "segments": [{"segment": name, "value": value} | asdict(of) for name, value, of in found],
    }
    if not found:
        text = f"no segment has {gates.min_segment_rows} labelled rows: none is judged"
        return GateResult("segment_metric", True, None, least, text, details)
    worse = [each for each in found if each[2].gain < least]
    shown = "; ".join(f"{name} {value}: {_say(metric, of)}" for name, value, of in worse[:_SAID] or found[:1])
    shown += f"; and {len(worse) - _SAID} more" if len(worse) > _SAID else ""
    text = f"{len(worse)} of {len(found)} segments are worse than {least:+g} allows; " + (
        shown if worse else f"the worst is {shown}"
    )
    return GateResult("segment_metric", not worse, found[0][2].gain, least, text, details)


def _say(metric: str, of: MetricComparison) -> str:
    return f"{metric} {of.candidate:.4f}, champion {of.champion:.4f}, on {of.rows:,} labelled rows: gain {of.gain:+.4f}"


def stage_labels(con: DuckDBPyConnection, pipeline: Pipeline, partitions: Sequence[LivePartition]) -> str:
    """The relation of the labels, by the SQL for each partition: a key is unique within its partition only.

    Raises:
        DeclarationError: it cannot run, or a key has two labels.
        SourceError: a source cannot be read.
    """
    import duckdb

    labels = pipeline.gates.labels
    assert labels and pipeline.labels_sql is not None
    where = f"Pipeline {pipeline.spec.name}, {labels.sql}"
    key = quote_all(pipeline.label_key)
    zone, relation = pipeline.spec.partitions.zone, ""
    with open_sources(con, pipeline.spec, pipeline.project.root):
        try:
            statements = con.extract_statements(pipeline.labels_sql)
            if len(statements) != 1 or "SELECT" not in str(statements[0].type):
                raise DeclarationError(f"{where}: expected exactly one SELECT, found {len(statements)} statements.")
            wanted = statements[0].named_parameters
            for live in partitions:
                bounds = sql_bounds([Partition(live.key, live.start.astimezone(zone), live.end.astimezone(zone))])
                if unknown := set(wanted) - bounds.keys():
                    raise DeclarationError(f"{where}: ${min(unknown)} is no parameter; expected ${', $'.join(bounds)}.")
                values = {name: value for name, value in bounds.items() if name in wanted}
                raw = keep(con, "labels_of_partition", pipeline.labels_sql, values)
                outcome = quote(labels.outcome)
                select = f"SELECT {literal(live.key)} AS partition_key, {key}, {outcome}::DOUBLE AS pip_outcome "
                relation = keep(con, "labels", select + f"FROM {raw} WHERE {outcome} IS NOT NULL", more=bool(relation))
        except duckdb.Error as error:
            raise DeclarationError(f"{where}: {error}") from error
    twice = con.execute(
        f"SELECT concat_ws(', ', {key}) FROM {relation} GROUP BY partition_key, {key} HAVING count(*) > 1 LIMIT 1"
    ).fetchone()
    if twice:
        raise DeclarationError(f"{where}: the key ({key}) {twice[0]} has more than one label in its partition.")
    return relation


def _read(con: DuckDBPyConnection, pipeline: Pipeline, rescored: str, labels: str) -> Labelled:
    """The rescored rows with a label, in the order of their keys: a seed then gives the same interval every time."""
    import numpy as np

    on = " AND ".join(f"l.{quote(name)} = r.{quote(name)}" for name in ("partition_key", *pipeline.label_key))
    segments = pipeline.gates.segments
    shown = "".join(f", coalesce(pip_segment_{i}, '(missing)') AS pip_segment_{i}" for i in range(len(segments)))
    labelled = keep(
        con,
        "labelled",
        f"SELECT r.partition_key, pip_key, pip_outcome, pip_champion_0, pip_candidate_0{shown} "
        f"FROM {rescored} r JOIN {labels} l ON {on} WHERE pip_seen",
    )
    # Numbers instead of texts: a row of millions is then some bytes in Python.
    codes = "".join(f", dense_rank() OVER (ORDER BY pip_segment_{i}) - 1 AS c{i}" for i in range(len(segments)))
    columns = con.execute(
        f"SELECT pip_outcome, pip_champion_0, pip_candidate_0{codes} FROM {labelled} ORDER BY partition_key, pip_key"
    ).fetchnumpy()
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    values = [
        con.execute(f"SELECT DISTINCT pip_segment_{i} FROM {labelled} ORDER BY 1").fetchall()
        for i in range(len(segments))
    ]
    return Labelled(
        y=arrays["pip_outcome"],
        champion=arrays["pip_champion_0"],
        candidate=arrays["pip_candidate_0"],
        segments={name: ([row[0] for row in values[i]], arrays[f"c{i}"]) for i, name in enumerate(segments)},
    )
