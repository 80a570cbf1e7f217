"""Calibrators from labelled rows: which partitions they are fitted on, and how."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pip_dagster import clock
from pip_dagster.flow.estimate import calibrated, logits_sql, measured
from pip_dagster.flow.estimate_rows import Estimated
from pip_dagster.ledger.calibrators import Calibrator, curve_columns, empty_columns, table_columns
from pip_dagster.ledger.estimates import MatureScoring
from pip_dagster.plural import plural
from pip_dagster.sql.names import among, literal, quote
from pip_dagster.statistics.band import spreads
from pip_dagster.statistics.expected import Expected, expected
from pip_dagster.statistics.loss_table import (
    counts_by_bin,
    edges_of,
    expected_losses,
    losses_sql,
    make_table,
    measured_losses,
)
from pip_dagster.statistics.score_curve import CLIP, GRAIN, ScoreCurve, fit_curve

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.registry.manifest import Manifest

# The newest labelled partitions of a calibrator; the larger number where outcomes of the scarcest class are few.
FEWEST, USUAL, MOST = 5, 28, 90
_PLENTY = 1_000
# Labels of the scarcest class, or of a model that predicts a number; below that there is no estimate.
LEAST_POSITIVES = 200
# A segment with so many labels, and outcomes of either kind, has a curve of its own.
_SEGMENT_LABELS, _SEGMENT_OUTCOMES = 500, 50
_MOST_SEGMENTS = 200


def window(mature: Sequence[MatureScoring], rates: Mapping[str, int]) -> list[MatureScoring]:
    """The newest of these partitions that a calibrator is fitted on. `rates`: partition → its scarcest outcomes."""
    found: list[MatureScoring] = []
    scarce = 0
    for each in reversed(mature):
        if len(found) >= MOST or (len(found) >= USUAL and scarce >= _PLENTY):
            break
        found.append(each)
        scarce += rates.get(each.partition_key, 0)
    return found[::-1]


def outcomes_of(con: DuckDBPyConnection, relation: str, of: Estimated) -> dict[str, int]:
    """Partition → labelled rows of its scarcest class; all labelled rows of a model that predicts a number."""
    if of.spec.kind not in ("binary", "multiclass"):
        return dict(con.execute(f"SELECT partition_key, count(*) FROM {relation} GROUP BY ALL").fetchall())
    classes = range(max(2, len(of.spec.scores)))
    counts = ", ".join(f"count(*) FILTER (pip_outcome = {k})" for k in classes)
    return {
        row[0]: min(row[1:])
        for row in con.execute(f"SELECT partition_key, {counts} FROM {relation} GROUP BY ALL").fetchall()
    }


def fit(
    con: DuckDBPyConnection,
    pipeline: str,
    manifest_digest: str,
    of: Estimated,
    labelled: str,
    scorings: Sequence[MatureScoring],
) -> Calibrator | str:
    """The calibrator of these scorings' rows in the relation `labelled`, or in words why there is none."""
    relation = f"(FROM {labelled} WHERE {among('partition_key', [each.partition_key for each in scorings])})"
    positives = sum(outcomes_of(con, relation, of).values())
    if len(scorings) < FEWEST or positives < LEAST_POSITIVES:
        rare = "labels of the rarer outcome" if of.spec.kind in ("binary", "multiclass") else "labels"
        return (
            f"{plural(len(scorings), 'partition')} of this version with mature labels and {positives:,} {rare}; "
            f"{FEWEST} and {LEAST_POSITIVES} are needed"
        )
    counted = con.execute(f"SELECT count(*) FROM {relation}").fetchone()
    base = Calibrator(
        digest="",
        pipeline=pipeline,
        manifest_digest=manifest_digest,
        kind="losses",
        first_partition=scorings[0].partition_key,
        last_partition=scorings[-1].partition_key,
        last_end=max(each.partition_end for each in scorings),
        partitions=len(scorings),
        labels_digest=labels_digest(scorings),
        rows=counted[0] if counted else 0,
        positives=positives,
        made_at=clock.wall(),
        **_any(empty_columns()),
    )
    found = (
        _losses(con, of, relation, base)
        if of.spec.kind in ("regression", "count")
        else _curves(con, of, relation, base)
    )
    return found.with_digest()


def labels_digest(scorings: Sequence[MatureScoring]) -> str:
    """Of which scorings, with which labels."""
    text = "\n".join(f"{each.scoring_id} {each.labels_digest}" for each in scorings)
    return hashlib.sha256(text.encode()).hexdigest()


def held_out(manifest: Manifest, manifest_digest: str, pipeline: str, of: Estimated) -> Calibrator | None:
    """The calibrator of the manifest's held-out rows, for a classifier that has no mature labels yet."""
    import numpy as np

    held, classifies = manifest.held_out, of.spec.kind in ("binary", "multiclass")
    if held is None or not classifies or of.spec.scale != "probability":
        return None
    curves: dict[tuple[str | None, int], ScoreCurve] = {}
    for k, output in enumerate(manifest.outputs):
        full = [each for each in held.bins.get(output, ()) if each.rows]
        if not full:
            return None
        rows = np.array([each.rows for each in full], float)
        mean = np.clip(np.array([each.score for each in full]) / rows, CLIP, 1 - CLIP)
        curves[None, k] = fit_curve(np.log(mean) - np.log1p(-mean), rows, np.array([each.outcome for each in full]))
    scarce = min(min(each.positives, each.rows - each.positives) for each in curves.values())
    if scarce < LEAST_POSITIVES:
        return None
    base = Calibrator(
        *("", pipeline, manifest_digest, "held out", None, None, None, 0, "", held.rows, scarce),
        **_any(empty_columns()),
        made_at=clock.wall(),
    )
    return replace(base, **_any(curve_columns(curves))).with_digest()


def _curves(con: DuckDBPyConnection, of: Estimated, relation: str, base: Calibrator) -> Calibrator:
    curves: dict[tuple[str | None, int], ScoreCurve] = {}
    for k in range(len(of.spec.scores)):
        hit = "pip_outcome" if len(of.spec.scores) == 1 else f"(pip_outcome = {k})::INT"
        counted = f"SELECT pip_segment, round(pip_l{k} * {GRAIN}) / {GRAIN} AS l, {hit} AS y"
        logits = f"({counted} FROM (SELECT *, {logits_sql(of)} FROM {relation}))"
        every = fit_curve(*_counts(con, f"SELECT l, count(*), sum(y) FROM {logits} GROUP BY l ORDER BY l"))
        curves[None, k] = every
        enough = (
            f"SELECT pip_segment FROM {logits} WHERE pip_segment IS NOT NULL GROUP BY 1 "
            f"HAVING count(*) >= {_SEGMENT_LABELS} AND least(sum(y), count(*) - sum(y)) >= {_SEGMENT_OUTCOMES} "
            f"ORDER BY count(*) DESC, 1 LIMIT {_MOST_SEGMENTS}"
        )
        for (value,) in con.execute(enough).fetchall():
            own = f"SELECT l, count(*), sum(y) FROM {logits} WHERE pip_segment = {literal(value)} GROUP BY l ORDER BY l"
            curves[value, k] = fit_curve(*_counts(con, own), every.knots)
    # A segment has curves for all classes or for none.
    whole = {value for value, _ in curves if all((value, k) in curves for k in range(len(of.spec.scores)))}
    kept = {(value, k): curve for (value, k), curve in curves.items() if value in whole}
    fitted = replace(base, kind="curves", **_any(curve_columns(kept)))
    estimated = expected(con, calibrated(of, fitted, relation), fitted.curves)
    return _with_spreads(fitted, estimated, measured(con, of, relation))


def _losses(con: DuckDBPyConnection, of: Estimated, relation: str, base: Calibrator) -> Calibrator:
    score, losses = quote(of.spec.scores[0]), losses_sql(of.spec)
    table = make_table(con, relation, score, losses, edges_of(con, relation, score))
    counts = counts_by_bin(con, relation, score, table.edges)
    estimated = {key: expected_losses(each, table) for key, each in counts.items()}
    fitted = replace(base, **_any(table_columns(table)))
    return _with_spreads(fitted, estimated, measured_losses(con, relation, losses))


def _with_spreads(
    fitted: Calibrator, estimated: Mapping[str, Mapping[str, Expected]], measured: Mapping[str, Mapping[str, float]]
) -> Calibrator:
    found = spreads(estimated, measured)
    return replace(fitted, metrics=list(found), spreads=list(found.values()))


def _counts(con: DuckDBPyConnection, select: str) -> tuple[Any, Any, Any]:
    import numpy as np

    rows = np.array(con.execute(select).fetchall(), float)
    return rows[:, 0], rows[:, 1], rows[:, 2]


def _any(columns: Mapping[str, list[object]]) -> dict[str, Any]:
    return dict(columns)
