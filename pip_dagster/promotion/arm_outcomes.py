"""What came of each arm of a split: late labels of its own rows, by intention to treat.

An arm's rows are those that it decided about, whether or not anything followed. Units were assigned at random, so that
a difference between arms beyond chance is what the versions' decisions made. Intervals are by unit and day, not by row:
rows of a unit are not independent, nor are those of a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.label_metric import label_metric
from pip_dagster.flow.label_window import label_key_error, stage_labels
from pip_dagster.flow.stage import keep
from pip_dagster.ledger.arms import CHAMPION
from pip_dagster.ledger.live_partitions import LivePartition
from pip_dagster.registry.task import CALIBRATED
from pip_dagster.sql.names import literal, quote, quote_all
from pip_dagster.statistics.arms import ArmRows, arm_difference, estimate
from pip_dagster.statistics.influence import MULTICLASS, Metric
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.tables import predictions_select

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.manifest import Manifest


@dataclass(frozen=True)
class Figure:
    """A figure with its interval, and its difference to the champion's arm with that of the difference."""

    value: float
    low: float
    high: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


@dataclass(frozen=True)
class ArmOutcome:
    """One arm over the partitions that are split: rows it decided about, those with a label, and what came of them.

    `outcome`: the mean of the declared outcome. `metric`: how good its scores were, on its own rows.
    """

    arm: str
    versions: tuple[int, ...]
    partitions: int
    rows: int
    units: int
    labelled: int
    outcome: Figure | None
    metric_name: str | None
    metric: Figure | None


def arm_outcomes(con: DuckDBPyConnection, pipeline: Pipeline, manifest: Manifest, last: int) -> list[ArmOutcome]:
    """The arms of the declared split over the newest `last` partitions that it parts; none without any.

    The warehouse is open for one read. Labels are read from the declared sources.

    Raises:
        DeclarationError: the labels' SQL cannot run, their key is not kept with the scored rows, or the metric does not
            fit the model.
        SourceError: a source cannot be read.
    """
    import duckdb

    labelled = pipeline.labels is not None
    metric = label_metric(pipeline, manifest) if labelled else None
    of_arms, partitions = _read(con, pipeline, manifest, last)
    if not partitions:
        return []
    labels = stage_labels(con, pipeline, manifest, partitions) if labelled else None
    on = " AND ".join(f"l.{quote(name)} = r.{quote(name)}" for name in ("partition_key", *pipeline.label_key))
    joined = f"LEFT JOIN {labels} l ON {on}" if labels else ""
    outcome = "l.pip_outcome" if labels else "NULL::DOUBLE"
    try:
        counted = con.execute(
            "SELECT arm, list(DISTINCT model_version ORDER BY model_version), count(DISTINCT r.partition_key), "
            f"count(*), count(DISTINCT pip_unit), count({outcome}) FROM {of_arms} r {joined} "
            f"GROUP BY arm ORDER BY arm <> {literal(CHAMPION)}, arm"
        ).fetchall()
    except duckdb.Error as error:
        raise label_key_error(pipeline, error) from error
    confidence, found = pipeline.gates.confidence, []
    base: ArmRows | None = None
    for arm, versions, parts, rows, units, with_label in counted:
        figures: list[Figure | None] = [None, None]
        if with_label and metric:
            of = _rows(con, f"{of_arms} r {joined} WHERE arm = {literal(arm)} AND {outcome} IS NOT NULL", manifest)
            # The mean number of a class means nothing.
            metrics: list[Metric | None] = [None if metric in MULTICLASS else "mean", metric]
            figures = [name and _figure(name, of, base, confidence) for name in metrics]
            base = of if arm == CHAMPION else base
        counts = (parts, rows, units, with_label)
        found.append(ArmOutcome(arm, tuple(versions), *counts, figures[0], metric, figures[1]))
    return found


def _rows(con: DuckDBPyConnection, labelled: str, manifest: Manifest) -> ArmRows:
    """The labelled rows of an arm; days have the same numbers in every arm."""
    import numpy as np

    names = [f"score_{i}" for i in range(len(manifest.outputs))]
    arrays = con.execute(
        f"SELECT l.pip_outcome AS y, {', '.join(f'r.{name}' for name in names)}, day, "
        f"dense_rank() OVER (ORDER BY pip_unit) - 1 AS unit FROM {labelled}"
    ).fetchnumpy()
    scores = [np.asarray(arrays[name]) for name in names]
    y, unit, day = (np.asarray(arrays[name]) for name in ("y", "unit", "day"))
    return ArmRows(y, scores[0] if len(scores) == 1 else np.column_stack(scores), unit, day)


def _figure(metric: Metric, of: ArmRows, base: ArmRows | None, confidence: float) -> Figure | None:
    found = estimate(metric, of, confidence)
    if found is None:
        return None
    difference = arm_difference(metric, base, of, confidence) if base else None
    against = (difference.value, difference.low, difference.high) if difference else (None, None, None)
    return Figure(found.value, found.low, found.high, *against)


def _read(
    con: DuckDBPyConnection, pipeline: Pipeline, manifest: Manifest, last: int
) -> tuple[str, list[LivePartition]]:
    """The newest partitions that are split by the declared salt, and the relation of their rows."""
    spec = pipeline.spec
    experiment = spec.scoring.experiment
    if experiment is None:
        return "", []
    purpose = f"{spec.name}: reading the arms"
    with reading(con, pipeline.project, purpose=purpose):
        found: Sequence[tuple[str, datetime, datetime, str, str, int, list[str]]] = con.execute(
            "SELECT l.partition_key, s.partition_start, s.partition_end, s.scoring_id, s.table_name, "
            "  s.rows_scored, list(DISTINCT a.scoring_id) "
            "FROM ledger.live l JOIN ledger.scorings s ON s.scoring_id = l.scoring_id "
            "JOIN ledger.arms a ON a.change_id = l.change_id WHERE l.pipeline = $pipeline AND a.salt = $salt "
            "GROUP BY ALL ORDER BY s.partition_start DESC LIMIT $last",
            {"pipeline": spec.name, "salt": experiment.salt, "last": last},
        ).fetchall()
        if not found:
            return "", []
        view = f"({predictions_select(con, spec.name)})"
        there = {row[0] for row in con.execute(f"DESCRIBE SELECT * FROM {view}").fetchall()}
        if missing := [name for name in pipeline.label_key if name not in there]:
            raise DeclarationError(
                f"Pipeline {spec.name}: {pipeline.labels_name}.key names {', '.join(missing)}, which is not kept with "
                "the scored rows: arms can be compared by a key of features.key."
            )
        kept = quote_all(dict.fromkeys(("partition_key", *pipeline.label_key)))
        unit = ", ".join(f"{quote(name)}::VARCHAR" for name in spec.unit)
        ids = ", ".join(literal(each) for row in found for each in row[6])
        scores = [quote(name) for name in manifest.outputs]
        if CALIBRATED in there and len(scores) == 1:
            scores = [f"coalesce({CALIBRATED}, {scores[0]})"]
        selected = ", ".join(f"{score} AS score_{i}" for i, score in enumerate(scores))
        of_arms = keep(
            con,
            "rows_of_arms",
            f"SELECT {kept}, arm, model_version, {selected}, dense_rank() OVER (ORDER BY partition_key) - 1 AS day, "
            f"to_json([{unit}])::VARCHAR AS pip_unit FROM {view} WHERE scoring_id IN ({ids})",
        )
    return of_arms, [LivePartition(*row[:6]) for row in reversed(found)]


def shown(outcome: ArmOutcome) -> list[Any]:
    """A row of a table."""

    def say(figure: Figure | None) -> str | None:
        return f"{figure.value:.4f} ({figure.low:.4f} to {figure.high:.4f})" if figure else None

    def gain(figure: Figure | None) -> str | None:
        if figure is None or figure.difference is None:
            return None
        return f"{figure.difference:+.4f} ({figure.difference_low:+.4f} to {figure.difference_high:+.4f})"

    versions = ", ".join(f"v{version}" for version in outcome.versions)
    counts = [outcome.partitions, outcome.rows, outcome.units, outcome.labelled]
    figures = [say(outcome.outcome), gain(outcome.outcome), say(outcome.metric), gain(outcome.metric)]
    return [outcome.arm, versions, *counts, *figures]
