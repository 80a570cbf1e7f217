"""The SQL of the metrics: sums over the rows of each group, and the curves over the order of their scores.

Internal names are lower case, and none differs from another in case only: DuckDB takes such names for one column.
"""

from __future__ import annotations

from pip_dagster.statistics.metrics.bins import (
    EQUAL_BINS,
    LEAST_MEAN,
    LEAST_PROBABILITY,
    Scale,
    bin_sql,
    probability_sql,
)
from pip_dagster.statistics.metrics.grouping import Grouping, rows_sql
from pip_dagster.statistics.metrics.spec import MetricSpec

# A stable draw of rows where every pair counts.
SURVIVAL_ROWS = 5_000


def sums_sql(relation: str, spec: MetricSpec, grouping: Grouping) -> str:
    """One row a group: pip_set, g0 …, `n`, how many rows are invalid, and the sums."""
    figures = {"n": "count(*)", **_invalid(spec), **_SUMS[spec.kind](spec)}
    listed = ", ".join(f"{sql} AS {name}" for name, sql in figures.items())
    return f"SELECT {grouping.selected}, {listed} FROM ({_terms(relation, spec, grouping)}) {grouping.clause()}"


def _invalid(spec: MetricSpec) -> dict[str, str]:
    """How many scores, outcomes and weights cannot be used."""
    scores = " OR ".join(f"NOT isfinite(s{i})" for i in range(len(spec.scores)))
    if spec.kind == "multiclass" or (spec.kind == "binary" and spec.scale == "probability"):
        scores += "".join(f" OR s{i} < 0 OR s{i} > 1" for i in range(len(spec.scores)))
    if spec.kind == "multiclass":
        scores += f" OR abs({' + '.join(f's{i}' for i in range(len(spec.scores)))} - 1) > 0.01"
    if spec.kind == "count":
        scores += " OR s0 < 0"
    outcomes = {
        "binary": "y NOT IN (0, 1)",
        "multiclass": f"y < 0 OR y >= {len(spec.classes)} OR y <> floor(y)",
        "count": "y < 0",
        "ranking": "y < 0 OR y > 31",
    }
    outcome = f"NOT isfinite(y) OR {outcomes.get(spec.kind, 'false')}"
    cases = {"bad_score": scores, "bad_outcome": outcome, "bad_weight": "NOT isfinite(w) OR w < 0"}
    if spec.kind == "ranking":
        cases["bad_query"] = "q IS NULL"
    return {name: f"count(*) FILTER ({case})" for name, case in cases.items()}


def _terms(relation: str, spec: MetricSpec, grouping: Grouping) -> str:
    """The rows with the terms of their losses."""
    rows = f"({rows_sql(relation, spec, grouping)})"
    if spec.kind == "binary":
        p = probability_sql("s0", spec.scale)
        clipped = f"least(greatest({p}, {LEAST_PROBABILITY}), 1 - {LEAST_PROBABILITY})"
        return f"SELECT *, {p} AS p, {clipped} AS pc FROM {rows}"
    if spec.kind == "multiclass":
        scores = f"[{', '.join(f's{i}' for i in range(len(spec.scores)))}]"
        return (
            f"SELECT *, list_position({scores}, list_max({scores})) - 1 AS predicted, "
            f"least(greatest({scores}[least(greatest(y, 0), 1e6)::INTEGER + 1], {LEAST_PROBABILITY}), 1) AS pc "
            f"FROM {rows}"
        )
    if spec.kind == "count":
        return f"SELECT *, s0 - y AS e, {_deviance(spec.power)} AS dev FROM {rows}"
    return f"SELECT *, s0 - y AS e FROM {rows}"


def _deviance(power: float) -> str:
    mu = f"greatest(s0, {LEAST_MEAN})"
    if power == 1:
        return f"2 * (CASE WHEN y > 0 THEN y * ln(y / {mu}) ELSE 0 END - y + s0)"
    a, b = 1 - power, 2 - power
    first = f"pow(greatest(y, 0), {b!r}) / ({a!r} * {b!r})"
    return f"2 * ({first} - y * pow({mu}, {a!r}) / ({a!r}) + pow({mu}, {b!r}) / {b!r})"


def _binary(spec: MetricSpec) -> dict[str, str]:
    found = {"w": "sum(w)", "y": "sum(w * y)", "w2": "sum(w * w)", "rows_y": "sum(y)"}
    if spec.scale != "score":
        found |= {
            "s": "sum(w * p)",
            "logloss": "sum(w * -(CASE WHEN y = 1 THEN ln(pc) ELSE ln(1 - pc) END))",
            "brier": "sum(w * (p - y) * (p - y))",
            "variance": "sum(w * w * p * (1 - p))",
        }
    for i in range(len(spec.decisions)):
        found |= {
            f"known{i}": f"sum(w) FILTER (d{i} IS NOT NULL)",
            f"flagged{i}": f"sum(w) FILTER (d{i})",
            f"hit{i}": f"sum(w * y) FILTER (d{i})",
            f"wanted{i}": f"sum(w * y) FILTER (d{i} IS NOT NULL)",
        }
    return found


def _multiclass(_spec: MetricSpec) -> dict[str, str]:
    return {"w": "sum(w)", "logloss": "sum(w * -ln(pc))"}


def _regression(spec: MetricSpec) -> dict[str, str]:
    found = {"w": "sum(w)", "y": "sum(w * y)"}
    for i, quantile in enumerate(spec.quantiles):
        found[f"pinball{i}"] = f"sum(w * greatest({quantile!r} * (y - s{i}), ({quantile!r} - 1) * (y - s{i})))"
        found[f"below{i}"] = f"sum(w) FILTER (y <= s{i})"
    if spec.quantiles:
        return found
    found |= {"s": "sum(w * s0)", "absolute": "sum(w * abs(e))", "squared": "sum(w * e * e)"}
    if spec.training_mean is not None:
        found["about_training"] = f"sum(w * (y - {spec.training_mean!r}) * (y - {spec.training_mean!r}))"
    return found


def _count(spec: MetricSpec) -> dict[str, str]:
    return _regression(spec) | {"deviance": "sum(w * dev)"}


def _none(_spec: MetricSpec) -> dict[str, str]:
    return {}


_SUMS = {
    "binary": _binary,
    "multiclass": _multiclass,
    "regression": _regression,
    "count": _count,
    "ranking": _none,
    "survival": _none,
}


def curves(spec: MetricSpec) -> list[tuple[str, str, Scale]]:
    """The curves of a kind: the value that orders the rows, the value that is added up, and the scale of its bins."""
    if spec.kind == "binary":
        return [("s0", "y", spec.scale)]
    if spec.kind == "multiclass":
        return [(f"s{i}", f"(y = {i})::DOUBLE", "probability") for i in range(len(spec.classes))]
    return [("s0", "y", "positive"), ("y", "y", "positive")] if spec.kind == "count" else []


def curves_sql(relation: str, spec: MetricSpec, grouping: Grouping) -> str:
    """One row a group and curve: pip_set, g0 …, `k`, the sums of AUC, average precision and Gini, and the bins.

    Rows of one value are one row first, so that ties count half whatever their order. `bins` has, of each fine bin and
    bin of equal counts, `code`, `tenth`, and the sums `c` of weights, `v` of outcomes, `x` of scores, `c2` of squared
    weights.
    """
    found = curves(spec)
    points = ", ".join(f"{{'k': {k}, 'x': {x}, 'v': {v}}}" for k, (x, v, _) in enumerate(found))
    if len(found) == 1:
        x, v, _ = found[0]
        select = f"SELECT {', '.join([*grouping.names, '0 AS k', f'{x} AS x', f'{v} AS v', 'w'])} FROM labelled"
    else:
        select = f"SELECT {', '.join([*grouping.names, 'w', f'unnest([{points}], recursive := true)'])} FROM labelled"
    scale = found[0][2]
    shown = probability_sql("x", scale) if spec.kind == "binary" else "x"
    columns, over = grouping.columns, f"PARTITION BY {grouping.columns}, k"
    return f"""
WITH labelled AS ({rows_sql(relation, spec, grouping)}),
points AS ({select}),
ties AS (SELECT {grouping.selected}, k, x, sum(w) AS c, sum(w * v) AS v, sum(w * w) AS c2 FROM points
  {grouping.clause("k", "x")}),
ranked AS (SELECT *, sum(c) OVER up AS cum_c, sum(v) OVER up AS cum_v, sum(c) OVER whole AS all_c,
    sum(v) OVER whole AS all_v
  FROM ties WINDOW up AS ({over} ORDER BY x ROWS UNBOUNDED PRECEDING), whole AS ({over})),
binned AS (SELECT {columns}, k, {bin_sql("x", scale)} AS code,
    least({EQUAL_BINS - 1}, floor({EQUAL_BINS} * (cum_c - c / 2) / nullif(all_c, 0)))::INTEGER AS tenth,
    sum(v * ((cum_c - c) - (cum_v - v) + (c - v) / 2)) AS area_below,
    sum(v * (all_v - cum_v + v) / nullif(all_c - cum_c + c, 0)) AS area_precision,
    sum(c * (all_v - cum_v + v / 2)) AS area_lorenz,
    sum(c) AS c, sum(v) AS v, sum(c * {shown}) AS x, sum(c2) AS c2 FROM ranked GROUP BY ALL)
SELECT {columns}, k, sum(area_below) AS area_below, sum(area_precision) AS area_precision,
  sum(area_lorenz) AS area_lorenz,
  list({{'code': code, 'tenth': tenth, 'c': c, 'v': v, 'x': x, 'c2': c2}}) AS bins
FROM binned GROUP BY ALL"""


def cells_sql(relation: str, spec: MetricSpec, grouping: Grouping) -> str:
    """One row a group: pip_set, g0 …, and the weights by actual and predicted class, where there are any."""
    number = f"(y * {len(spec.classes)} + predicted)::INTEGER"
    return (
        f"SELECT {grouping.columns}, list({{'cell': cell, 'c': c}}) AS cells FROM ("
        f"SELECT {grouping.selected}, cell, sum(w) AS c FROM (SELECT *, {number} AS cell "
        f"FROM ({_terms(relation, spec, grouping)})) {grouping.clause('cell')}) GROUP BY ALL"
    )


def ranking_sql(relation: str, spec: MetricSpec, grouping: Grouping) -> str:
    """One row a group: pip_set, g0 …, `queries`, `empty` (no relevant row), and the sums of NDCG and MAP of the others.

    Each order of tied scores is equally likely; the figure is the mean over all of them (McSherry and Najork 2008).
    """
    ranked, at = [], spec.at
    for i, (selected, own) in enumerate(grouping.each()):  # DuckDB knows a window by one name in all of a UNION
        query = ", ".join(filter(None, (own, "q")))
        ranked.append(
            f"SELECT {selected}, q, y, row_number() OVER down{i} AS pos, rank() OVER down{i} - 1 AS above, "
            f"  count(*) OVER tie{i} AS tied, avg(pow(2, y) - 1) OVER tie{i} AS gain, "
            f"  count(*) FILTER (y > 0) OVER tie{i} AS good, "
            f"  count(*) FILTER (y > 0) OVER (down{i} RANGE UNBOUNDED PRECEDING) AS good_through, "
            f"  row_number() OVER (PARTITION BY {query} ORDER BY y DESC) AS best FROM labelled "
            f"WINDOW down{i} AS (PARTITION BY {query} ORDER BY s0 DESC), tie{i} AS (PARTITION BY {query}, s0)"
        )
    found = (
        "(good / tied) * (good_through - good + 1 + coalesce((pos - above - 1) * (good - 1) / nullif(tied - 1, 0), 0))"
    )
    return f"""
WITH labelled AS ({rows_sql(relation, spec, grouping)}),
ranked AS ({" UNION ALL ".join(ranked)}),
queries AS (SELECT {grouping.columns}, q, sum(gain / log2(1 + pos)) FILTER (pos <= {at}) AS dcg,
    sum((pow(2, y) - 1) / log2(1 + best)) FILTER (best <= {at}) AS ideal,
    sum({found} / pos) FILTER (pos <= {at}) AS precisions, count(*) FILTER (y > 0) AS relevant
  FROM ranked GROUP BY {grouping.columns}, q)
SELECT {grouping.columns}, count(*) AS queries, count(*) FILTER (relevant = 0) AS empty,
  sum(dcg / ideal) FILTER (relevant > 0) AS ndcg, sum(precisions / least(relevant, {at})) FILTER (relevant > 0) AS map
FROM queries GROUP BY {grouping.columns}"""


def survival_sql(relation: str, spec: MetricSpec, grouping: Grouping) -> str:
    """At most 5,000 rows a group, the same ones each time, as lists: pip_set, g0 …, `score`, `time`, `censored`."""
    parts = []
    for selected, own in grouping.each():
        over = f"{f'PARTITION BY {own} ' if own else ''}ORDER BY h, y, s0, cens"
        parts.append(
            f"SELECT {selected}, s0, y, cens FROM labelled QUALIFY row_number() OVER ({over}) <= {SURVIVAL_ROWS}"
        )
    listed = "list({'score': s0, 'time': y, 'censored': cens}) AS drawn"
    return (
        f"WITH labelled AS ({rows_sql(relation, spec, grouping)}), drawn AS ({' UNION ALL '.join(parts)}) "
        f"SELECT {grouping.columns}, {listed} FROM drawn GROUP BY {grouping.columns}"
    )
