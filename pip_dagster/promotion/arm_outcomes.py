"""What came of each arm of a split: late labels of its own rows, by intention to treat.

An arm's rows are those that it decided about, whether or not anything followed. Units were assigned at random, so that
a difference between arms beyond chance is what the versions' decisions made. It is resampled by unit, not by row: a
unit's rows are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.stage import keep
from pip_dagster.ledger.arms import CHAMPION
from pip_dagster.promotion.labels import stage_labels
from pip_dagster.promotion.stored import LivePartition
from pip_dagster.sql.names import literal, quote, quote_all
from pip_dagster.statistics.metrics import Resampled, default_metric, resample
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
    metric_name: str
    metric: Figure | None


def arm_outcomes(con: DuckDBPyConnection, pipeline: Pipeline, manifest: Manifest, last: int) -> list[ArmOutcome]:
    """The arms of the declared split over the newest `last` partitions that it parts; none without any.

    The warehouse is open for one read. Labels are read from the declared sources.

    Raises:
        DeclarationError: the labels' SQL cannot run, or their key is not kept with the scored rows.
        SourceError: a source cannot be read.
    """
    import numpy as np

    of_arms, partitions = _read(con, pipeline, manifest.outputs[0], last)
    if not partitions:
        return []
    labels = stage_labels(con, pipeline, partitions) if pipeline.gates.labels else None
    on = " AND ".join(f"l.{quote(name)} = r.{quote(name)}" for name in ("partition_key", *pipeline.label_key))
    joined = f"LEFT JOIN {labels} l ON {on}" if labels else ""
    outcome = "l.pip_outcome" if labels else "NULL::DOUBLE"
    counted = con.execute(
        "SELECT arm, list(DISTINCT model_version ORDER BY model_version), count(DISTINCT r.partition_key), count(*), "
        f"count(DISTINCT pip_unit), count({outcome}) FROM {of_arms} r {joined} "
        f"GROUP BY arm ORDER BY arm <> {literal(CHAMPION)}, arm"
    ).fetchall()
    metric = pipeline.gates.metric or default_metric(manifest.task)
    found: list[ArmOutcome] = []
    base: tuple[Resampled | None, Resampled | None] = (None, None)
    for seed, (arm, versions, parts, rows, units, labelled) in enumerate(counted):
        figures: tuple[Resampled | None, Resampled | None] = (None, None)
        if labelled:
            arrays = con.execute(
                f"SELECT {outcome} AS y, score, dense_rank() OVER (ORDER BY pip_unit) - 1 AS unit FROM {of_arms} r "
                f"{joined} WHERE arm = {literal(arm)} AND {outcome} IS NOT NULL ORDER BY pip_unit, r.partition_key"
            ).fetchnumpy()
            y, scores, unit = (np.asarray(arrays[name]) for name in ("y", "score", "unit"))
            figures = (resample("mean", y, scores, unit, seed), resample(metric, y, scores, unit, seed))
        if arm == CHAMPION:
            base = figures
        pair = [_figure(of, against, pipeline.gates.confidence) for of, against in zip(figures, base, strict=True)]
        found.append(ArmOutcome(arm, tuple(versions), parts, rows, units, labelled, pair[0], metric, pair[1]))
    return found


def _figure(of: Resampled | None, champion: Resampled | None, confidence: float) -> Figure | None:
    import numpy as np

    if of is None:
        return None
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.nanquantile(of.values, tails)
    figure = Figure(of.value, float(low), float(high))
    if champion is None or champion is of:
        return figure
    # The arms have no unit in common, so that their resamples are independent.
    low, high = np.nanquantile(of.values - champion.values, tails)
    return Figure(figure.value, figure.low, figure.high, of.value - champion.value, float(low), float(high))


def _read(con: DuckDBPyConnection, pipeline: Pipeline, score: str, last: int) -> tuple[str, list[LivePartition]]:
    """The newest partitions that are split by the declared salt, and the relation of their rows."""
    spec = pipeline.spec
    experiment = spec.scoring.experiment
    if experiment is None:
        return "", []
    purpose = f"{spec.name}: reading the arms"
    with reading(con, pipeline.project, purpose=purpose):
        found: Sequence[tuple[str, datetime, datetime, str, str, list[str]]] = con.execute(
            "SELECT l.partition_key, s.partition_start, s.partition_end, s.scoring_id, s.table_name, "
            "  list(DISTINCT a.scoring_id) FROM ledger.live l JOIN ledger.scorings s ON s.scoring_id = l.scoring_id "
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
                f"Pipeline {spec.name}: gates.labels.key names {', '.join(missing)}, which is not kept with the scored "
                "rows: arms can be compared by a key of features.key."
            )
        kept = quote_all(dict.fromkeys(("partition_key", *pipeline.label_key)))
        unit = ", ".join(f"{quote(name)}::VARCHAR" for name in spec.unit)
        ids = ", ".join(literal(each) for row in found for each in row[5])
        of_arms = keep(
            con,
            "rows_of_arms",
            f"SELECT {kept}, arm, model_version, {quote(score)} AS score, "
            f"to_json([{unit}])::VARCHAR AS pip_unit FROM {view} WHERE scoring_id IN ({ids})",
        )
    return of_arms, [LivePartition(*row[:5], ()) for row in reversed(found)]


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
