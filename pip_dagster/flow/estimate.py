"""Estimate the metrics of scored rows with a calibrator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster.flow.estimate_rows import Estimated
from pip_dagster.ledger.calibrators import Calibrator
from pip_dagster.plural import plural
from pip_dagster.sql.names import literal, quote
from pip_dagster.statistics.band import LEAST_ROWS, Band, band
from pip_dagster.statistics.expected import CalibratedRows, Expected, expected
from pip_dagster.statistics.loss_table import beyond, counts_by_bin, expected_losses
from pip_dagster.statistics.score_curve import logit_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def estimate(
    con: DuckDBPyConnection, of: Estimated, calibrator: Calibrator, scored: str
) -> dict[str, dict[str, Band] | str]:
    """Partition → metric → its band, or in words why there is none, of the rows in the relation `scored`."""
    counts = dict(con.execute(f"SELECT partition_key, count(*) FROM {scored} GROUP BY ALL").fetchall())
    if calibrator.kind == "losses":
        found, refused = _expected_losses(con, of, calibrator, scored)
    else:
        found, refused = expected(con, calibrated(of, calibrator, scored), calibrator.curves), {}
    result: dict[str, dict[str, Band] | str] = {}
    spread = calibrator.spread
    for key, rows in counts.items():
        if rows < LEAST_ROWS:
            result[key] = f"{plural(rows, 'row')}; an estimate needs {LEAST_ROWS}"
        elif key in refused:
            result[key] = refused[key]
        else:
            result[key] = {
                metric: band(metric, each, spread.get(metric, 0.0), calibrator.partitions)
                for metric, each in found.get(key, {}).items()
                # Without it the spread between days is not known: of a decision that was declared since.
                if metric in spread or calibrator.kind == "held out"
            } or "its rows give no metric: too few are expected of one class"
    return result


def calibrated(of: Estimated, calibrator: Calibrator, scored: str) -> CalibratedRows:
    """The rows with the probability that the calibrator gives to each class."""
    curves, groups = calibrator.curves, calibrator.groups
    classes = range(len(of.spec.scores))
    cases = "".join(f" WHEN {literal(value)} THEN {i + 1}" for i, value in enumerate(groups))
    group = f"CASE pip_segment{cases} ELSE 0 END" if groups else "0"
    raw = []
    for k in classes:
        with_own = [g for g in range(1, len(groups) + 1) if (g, k) in curves]
        own = "".join(f" WHEN {g} THEN {curves[g, k].sql(f'pip_l{k}')}" for g in with_own)
        every = curves[0, k].sql(f"pip_l{k}")
        raw.append(f"CASE pip_group{own} ELSE {every} END" if own else every)
    probabilities = ", ".join(f"{sql} AS pip_p{k}" for k, sql in enumerate(raw))
    relation = f"(SELECT *, {probabilities} FROM (SELECT *, {group} AS pip_group, {logits_sql(of)} FROM {scored}))"
    if len(of.spec.scores) > 1:
        total = " + ".join(f"pip_p{k}" for k in classes)
        shares = ", ".join(f"pip_p{k} / ({total}) AS pip_p{k}" for k in classes)
        relation = f"(SELECT * REPLACE ({shares}) FROM {relation})"
    return CalibratedRows(relation, of.spec, tuple(curves[0, k].knots for k in classes))


def logits_sql(of: Estimated) -> str:
    """SQL of the logit of each class's score, `pip_l<i>`."""
    margin = of.spec.scale == "margin" and of.spec.kind == "binary"
    return ", ".join(
        f"{logit_sql(f'{quote(name)}::DOUBLE', margin=margin)} AS pip_l{k}" for k, name in enumerate(of.spec.scores)
    )


def measured(con: DuckDBPyConnection, of: Estimated, labelled: str) -> dict[str, dict[str, float]]:
    """Partition → metric → what the labels show, by the statement that estimates."""
    classes = range(len(of.spec.scores))
    hits = ", ".join(
        (f"(pip_outcome = {k})::DOUBLE" if len(of.spec.scores) > 1 else "pip_outcome") + f" AS pip_p{k}"
        for k in classes
    )
    rows = CalibratedRows(f"(SELECT *, 0 AS pip_group, {hits} FROM {labelled})", of.spec)
    return {key: {name: each.value for name, each in found.items()} for key, found in expected(con, rows, {}).items()}


def _expected_losses(
    con: DuckDBPyConnection, of: Estimated, calibrator: Calibrator, scored: str
) -> tuple[dict[str, dict[str, Expected]], dict[str, str]]:
    table = calibrator.table
    found: dict[str, dict[str, Expected]] = {}
    refused: dict[str, str] = {}
    for key, counts in counts_by_bin(con, scored, quote(of.spec.scores[0]), table.edges).items():
        if reason := beyond(counts, table):
            refused[key] = reason
        else:
            found[key] = expected_losses(counts, table)
    return found, refused
