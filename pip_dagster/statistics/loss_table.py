"""Losses by bins of the score: what the error of a model that predicts a number is expected to be.

A prediction's loss is taken to be that of labelled rows with a like score. It sees a shift that the score sees, and
nothing else; beyond the scores that it was made from it gives nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.sql.names import quote
from pip_dagster.statistics.expected import Expected
from pip_dagster.statistics.metrics.bins import LEAST_MEAN
from pip_dagster.statistics.metrics.spec import MetricSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MOST_BINS, LEAST_IN_BIN = 20, 50
# No estimate where the outermost bins have more than so many times the share that they have in the table.
MOST_BEYOND = 2.0
# Where bins are taken from: at most so many labelled rows, drawn by a hash of their score.
_SAMPLE = 200_000


@dataclass(frozen=True)
class LossTable:
    """Bin i holds edges[i - 1] < score <= edges[i], the outermost ones are open; `rows` of each bin.

    `means`, `variances`: metric by metric the loss in each bin.
    """

    edges: tuple[float, ...]
    rows: tuple[int, ...]
    metrics: tuple[str, ...]
    means: tuple[tuple[float, ...], ...]
    variances: tuple[tuple[float, ...], ...]


def losses_sql(spec: MetricSpec) -> dict[str, str]:
    """Metric → SQL of a row's loss. The metric is its mean; of `rmse` the root of it."""
    score, y = f"{quote(spec.scores[0])}::DOUBLE", f"{quote(spec.outcome)}::DOUBLE"
    error = f"({score} - {y})"
    found = {"rmse": f"{error} * {error}", "mae": f"abs{error}", "bias": error}
    if spec.kind != "count":
        return found
    mu = f"greatest({score}, {LEAST_MEAN})"
    if spec.power == 1:
        deviance = f"2 * (CASE WHEN {y} > 0 THEN {y} * ln({y} / {mu}) ELSE 0 END - {y} + {score})"
    else:
        a, b = 1 - spec.power, 2 - spec.power
        first = f"pow(greatest({y}, 0), {b!r}) / ({a!r} * {b!r})"
        deviance = f"2 * ({first} - {y} * pow({mu}, {a!r}) / ({a!r}) + pow({mu}, {b!r}) / {b!r})"
    return {spec.deviance: deviance} | found


def edges_of(con: DuckDBPyConnection, relation: str, score: str) -> tuple[float, ...]:
    """The inner edges of bins with about equally many rows, at least 50 each; none where there is one bin."""
    row = con.execute(f"SELECT count(*) FROM {relation}").fetchone()
    total = row[0] if row else 0
    bins = min(MOST_BINS, total // LEAST_IN_BIN)
    if bins < 2:
        return ()
    every = max(1, total // _SAMPLE)
    shares = [i / bins for i in range(1, bins)]
    drawn = f"SELECT {score}::DOUBLE AS s FROM {relation} WHERE hash({score}) % {every} = 0"
    found = con.execute(f"SELECT quantile_disc(s, {shares!r}), max(s) FROM ({drawn})").fetchone()
    if not found or found[0] is None:
        return ()
    return tuple(sorted({float(edge) for edge in found[0] if edge < found[1]}))


def make_table(
    con: DuckDBPyConnection, relation: str, score: str, losses: dict[str, str], edges: Sequence[float]
) -> LossTable:
    """The table of labelled rows."""
    listed = ", ".join(f"avg({loss}), var_samp({loss})" for loss in losses.values())
    result = con.execute(
        f"SELECT {_bin_sql(score, edges)} AS pip_bin, count(*), {listed} FROM {relation} "
        "GROUP BY pip_bin ORDER BY pip_bin"
    ).fetchall()
    by_bin = {row[0]: row[1:] for row in result}
    bins = range(len(edges) + 1)
    rows = tuple(int(by_bin[i][0]) if i in by_bin else 0 for i in bins)
    at = range(len(losses))
    means = tuple(tuple(float(by_bin[i][1 + 2 * m]) if rows[i] else 0.0 for i in bins) for m in at)
    variances = tuple(tuple(float(by_bin[i][2 + 2 * m] or 0.0) if rows[i] else 0.0 for i in bins) for m in at)
    return LossTable(tuple(edges), rows, tuple(losses), means, variances)


def counts_by_bin(
    con: DuckDBPyConnection, relation: str, score: str, edges: Sequence[float]
) -> dict[str, tuple[int, ...]]:
    """Partition → its rows in each bin."""
    found: dict[str, list[int]] = {}
    select = f"SELECT partition_key, {_bin_sql(score, edges)} AS pip_bin, count(*) FROM {relation} GROUP BY ALL"
    for key, at, count in con.execute(select).fetchall():
        found.setdefault(key, [0] * (len(edges) + 1))[at] = count
    return {key: tuple(counts) for key, counts in found.items()}


def measured_losses(con: DuckDBPyConnection, relation: str, losses: dict[str, str]) -> dict[str, dict[str, float]]:
    """Partition → metric → the mean loss of its labelled rows."""
    listed = ", ".join(f"avg({loss})" for loss in losses.values())
    result = con.execute(f"SELECT partition_key, {listed} FROM {relation} GROUP BY ALL").fetchall()
    return {row[0]: dict(zip(losses, row[1:], strict=True)) for row in result}


def beyond(counts: Sequence[int], table: LossTable) -> str | None:
    """Why the table does not apply to rows with these counts by bin, in words; None where it does."""
    total, of_table = sum(counts), sum(table.rows)
    if len(table.edges) < 2:
        return None  # the score has one or two values, of which neither end is an extreme
    for at, end in ((0, "lowest"), (-1, "highest")):
        share, usual = counts[at] / max(total, 1), table.rows[at] / max(of_table, 1)
        # The share itself varies by chance: three standard deviations above twice the usual one are no chance.
        chance = 3 * (MOST_BEYOND * usual * (1 - usual) / max(total, 1)) ** 0.5
        if share > MOST_BEYOND * usual + chance:
            return (
                f"{share:.0%} of the rows have scores in the {end} bin of the labelled rows, which had {usual:.0%} of "
                "them: labels of such scores are too few"
            )
    return None


def expected_losses(counts: Sequence[int], table: LossTable) -> dict[str, Expected]:
    """Metric → the loss expected of rows with these counts by bin; empty bins of the table give none."""
    total = sum(counts)
    if not total or any(count and not rows for count, rows in zip(counts, table.rows, strict=True)):
        return {}
    weights = [count / total for count in counts]
    found = {}
    for metric, means, variances in zip(table.metrics, table.means, table.variances, strict=True):
        value = sum(w * m for w, m in zip(weights, means, strict=True))
        chance = sum(w * v for w, v in zip(weights, variances, strict=True)) / total
        from_fit = sum(w * w * v / rows for w, v, rows in zip(weights, variances, table.rows, strict=True) if rows)
        found[metric] = Expected(value, chance, from_fit)
    return found


def _bin_sql(score: str, edges: Sequence[float]) -> str:
    if not edges:
        return "0"
    return " + ".join(f"({score}::DOUBLE > '{edge!r}'::DOUBLE)::INT" for edge in edges)  # a bare number is a DECIMAL
