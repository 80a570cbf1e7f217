"""CBPE: what metrics of a classifier are expected to be, from calibrated probabilities, before outcomes are known.

Each metric is a sum over rows whose derivative by a row's probability is known, so that one statement gives the
expectation, the variance of what will be measured (the delta method), and the derivatives by the calibrator's numbers.
DuckDB sorts and adds up; no partition is in memory whole. Ties count as halves, and one row, one class or equal scores
give NULL where a metric is not defined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.sql.names import quote
from pip_dagster.statistics.metrics.bins import probability_sql
from pip_dagster.statistics.metrics.spec import MetricSpec
from pip_dagster.statistics.score_curve import CLIP, ScoreCurve, terms_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# With more classes, a sort for the AUC of each of them costs too much.
MOST_AUC_CLASSES = 20
# Expected rows of the scarcer class, or flagged rows: with fewer, the normal approximation does not hold.
LEAST_OF_A_CLASS = 10


@dataclass(frozen=True)
class CalibratedRows:
    """A relation of scored rows, and what is measured of them.

    `relation` has partition_key, `pip_group`, the columns of `spec`, and for each class its probability `pip_p<i>` and
    the logit of its score, `pip_l<i>`. `knots`: of each class's curve.
    """

    relation: str
    spec: MetricSpec
    knots: tuple[tuple[float, float], ...] = ()

    @property
    def scores(self) -> tuple[str, ...]:
        """The columns of scores: one of a binary model, or one for each class."""
        return self.spec.scores


@dataclass(frozen=True)
class Expected:
    """A metric of one partition: its expectation, and the variance of what will be measured by chance of the outcomes.

    `from_fit`: the variance that comes from the calibrator.
    """

    value: float
    variance: float
    from_fit: float


def expected(
    con: DuckDBPyConnection, rows: CalibratedRows, fits: Mapping[tuple[int, int], ScoreCurve]
) -> dict[str, dict[str, Expected]]:
    """Partition → metric → what is expected. `fits`: (group, class) → the calibrator that gave the probabilities.

    With outcomes as probabilities and no `fits`, the values are what was measured.
    """
    metrics = _metrics(rows)
    result = con.execute(_statement(rows, metrics))
    names = [each[0] for each in result.description]
    found: dict[str, dict[str, Expected]] = {}
    while batch := result.fetchmany(1024):
        for values in batch:
            row = dict(zip(names, values, strict=True))
            of_partition = found.setdefault(row["partition_key"], {})
            for i, metric in enumerate(metrics):
                if row[f"value{i}"] is None or not row[f"enough{i}"]:
                    continue
                before = of_partition.get(metric.name, Expected(0.0, 0.0, 0.0))
                by_fit = sum(
                    fits[row["pip_group"], k].variance(row[f"by{i}_{k}"])
                    for k in range(len(rows.scores))
                    if (row["pip_group"], k) in fits
                )
                of_partition[metric.name] = Expected(
                    row[f"value{i}"], before.variance + row[f"variance{i}"], before.from_fit + by_fit
                )
    return found


@dataclass(frozen=True)
class _Metric:
    """In SQL over the rows with their partition's totals: the value, and each class's derivative; when it is sound."""

    name: str
    value: str
    by_class: tuple[str, ...]
    enough: str = "true"


def _metrics(rows: CalibratedRows) -> list[_Metric]:
    return _binary(rows) if len(rows.scores) == 1 else _multiclass(rows)


def _binary(rows: CalibratedRows) -> list[_Metric]:
    s = f"({probability_sql('s0', rows.spec.scale)})"
    hit, miss = _log(s), _log(f"(1 - {s})")
    both = f"least(pos0, n - pos0) >= {LEAST_OF_A_CLASS}"
    found = [_Metric("auc", "auc0", (_auc_by(0),), both), _Metric("base_rate", "pos0 / n", ("1 / n",))]
    if rows.spec.scale != "score":
        found.append(_mean("logloss", f"(-{miss})", f"({miss} - {hit})"))
        found.append(_mean("brier", f"({s} * {s})", f"(1 - 2 * {s})"))
    for i, decision in enumerate(rows.spec.decisions):
        flag, known = _flag(i), f"(f{i} IS NOT NULL)::INT"
        flagged, wanted = f"nullif(flagged{i}, 0)", f"nullif(wanted{i}, 0)"
        enough = f"flagged{i} >= {LEAST_OF_A_CLASS}"
        found.append(_Metric(f"precision.{decision}", f"hits{i} / {flagged}", (f"{flag} / {flagged}",), enough))
        by, enough = f"({flag} - {known} * hits{i} / {wanted}) / {wanted}", f"wanted{i} >= {LEAST_OF_A_CLASS}"
        found.append(_Metric(f"recall.{decision}", f"hits{i} / {wanted}", (by,), enough))
    return found


def _multiclass(rows: CalibratedRows) -> list[_Metric]:
    classes = range(len(rows.scores))
    chosen = [f"(pip_chosen = {k})::INT" for k in classes]
    found = [
        _Metric("accuracy", f"({' + '.join(f'hits{k}' for k in classes)}) / n", tuple(f"{c} / n" for c in chosen)),
        _mean("multi_logloss", "0", *(f"(-{_log(f's{k}')})" for k in classes)),
    ]
    f1 = [f"coalesce(2 * hits{k} / nullif(flagged{k} + pos{k}, 0), 0)" for k in classes]
    by = tuple(
        f"coalesce((2 * {chosen[k]} - {f1[k]}) / nullif(flagged{k} + pos{k}, 0), 0) / {len(classes)}" for k in classes
    )
    least = f"least({', '.join(f'pos{k}' for k in classes)})"
    found.append(_Metric("macro_f1", f"({' + '.join(f1)}) / {len(classes)}", by, f"{least} >= {LEAST_OF_A_CLASS}"))
    if len(classes) <= MOST_AUC_CLASSES:
        mean = f"({' + '.join(f'auc{k}' for k in classes)}) / {len(classes)}"
        of_all = tuple(f"({_auc_by(k)}) / {len(classes)}" for k in classes)
        found.append(_Metric("ovr_auc", mean, of_all, f"{least} >= {LEAST_OF_A_CLASS}"))
    return found


def _flag(i: int) -> str:
    """Whether a row is flagged by the i-th decision; without a decision it is not."""
    return f"coalesce(f{i}, false)::INT"


def _log(probability: str) -> str:
    return f"ln(least(greatest({probability}, {CLIP!r}), {1 - CLIP!r}))"


def _mean(name: str, base: str, *by_class: str) -> _Metric:
    """A mean over rows of `base`, plus what each class adds where it is the outcome."""
    added = " + ".join(f"pip_p{k} * {each}" for k, each in enumerate(by_class))
    return _Metric(name, f"sum({base} + {added}) OVER part / n", tuple(f"{each} / n" for each in by_class))


def _auc_by(k: int) -> str:
    """The derivative of AUC by a row's probability: pairs it wins less pairs it loses, over all, less AUC's share."""
    return f"(below{k} - above{k} - auc{k} * (n - 2 * pos{k} - 1 + 2 * pip_p{k})) / nullif(pairs{k}, 0)"


def _statement(rows: CalibratedRows, metrics: Sequence[_Metric]) -> str:
    classes = range(len(rows.scores))
    ranked = len(rows.scores) <= MOST_AUC_CLASSES
    several, decisions = len(rows.scores) > 1, range(len(rows.spec.decisions))
    flags = [f"(pip_chosen = {k})::INT" for k in classes] if several else [_flag(i) for i in decisions]
    totals, windows = ["count(*) OVER part AS n"], []
    for k in classes:
        p, score = f"pip_p{k}", f"s{k}"
        totals.append(f"sum({p}) OVER part AS pos{k}")
        if ranked:
            windows += [f"upto{k} AS (PARTITION BY partition_key ORDER BY {score})"]
            windows += [f"ties{k} AS (PARTITION BY partition_key, {score})"]
            totals.append(f"sum({p} * (1 - {p})) OVER part AS spread{k}")
            # All below, and half of those with the same score but for the row itself.
            totals.append(
                f"sum(1 - {p}) OVER upto{k} - (sum(1 - {p}) OVER ties{k} + 1 - {p}) / 2 AS below{k}, "
                f"sum({p}) OVER part - sum({p}) OVER upto{k} + (sum({p}) OVER ties{k} - {p}) / 2 AS above{k}"
            )
    for i, flag in enumerate(flags):
        of = f"pip_p{i}" if several else "pip_p0"
        totals.append(f"sum({flag}) OVER part AS flagged{i}, sum({flag} * {of}) OVER part AS hits{i}")
    totals += [f"sum(pip_p0) FILTER (f{i} IS NOT NULL) OVER part AS wanted{i}" for i in decisions if not several]
    pairs = ", ".join(f"pos{k} * (n - pos{k}) - spread{k} AS pairs{k}" for k in classes) if ranked else "1 AS pairs"
    auc = "1 AS auc"
    if ranked:
        # Below a billionth of a pair there is one class only, and rounding is all that is left.
        auc = ", ".join(
            f"CASE WHEN pairs{k} > 1e-9 THEN sum(pip_p{k} * below{k}) OVER part / pairs{k} END AS auc{k}"
            for k in classes
        )
    each = ", ".join(
        f"{metric.value} AS value{i}, {metric.enough} AS enough{i}, "
        + ", ".join(f"{by} AS d{i}_{k}" for k, by in enumerate(metric.by_class))
        for i, metric in enumerate(metrics)
    )
    named = ", ".join(["part AS (PARTITION BY partition_key)", *windows])
    part = "WINDOW part AS (PARTITION BY partition_key)"
    return (
        f"WITH rows_ AS ({_renamed(rows)}), "
        f"totals AS (SELECT *, {', '.join(totals)} FROM rows_ WINDOW {named}), "
        f"paired AS (SELECT *, {pairs} FROM totals), ranked AS (SELECT *, {auc} FROM paired {part}), "
        f"each_ AS (SELECT *, {each} FROM ranked {part}) "
        f"SELECT partition_key, pip_group, {', '.join(_sums(i, metric, rows) for i, metric in enumerate(metrics))} "
        "FROM each_ GROUP BY ALL ORDER BY ALL"
    )


def _renamed(rows: CalibratedRows) -> str:
    """The rows with names of our own, whatever a pipeline calls its columns: s0 for a score, f0 for a decision."""
    classes = range(len(rows.scores))
    columns = ["partition_key", "pip_group", *(f"pip_p{k}" for k in classes)]
    columns += [f"pip_l{k}" for k in range(len(rows.knots))]
    columns += [f"{quote(name)}::DOUBLE AS s{k}" for k, name in enumerate(rows.scores)]
    columns += [f"{quote(name)} AS f{i}" for i, name in enumerate(rows.spec.decisions)]
    select = f"SELECT {', '.join(columns)} FROM {rows.relation}"
    if len(rows.scores) == 1:
        return select
    listed = ", ".join(f"s{k}" for k in classes)
    return f"SELECT *, list_position([{listed}], greatest({listed})) - 1 AS pip_chosen FROM ({select})"


def _sums(i: int, metric: _Metric, rows: CalibratedRows) -> str:
    classes = range(len(metric.by_class))
    squares = " + ".join(f"pip_p{k} * d{i}_{k} * d{i}_{k}" for k in classes)
    mean = " + ".join(f"pip_p{k} * d{i}_{k}" for k in classes)
    by_fit = ""
    for k, knots in enumerate(rows.knots):
        change = f"d{i}_{k} * pip_p{k} * (1 - pip_p{k})"
        listed = ", ".join(f"sum({change} * {term})" for term in terms_sql(f"pip_l{k}", knots))
        by_fit += f", [{listed}] AS by{i}_{k}"
    return (
        f"any_value(value{i}) AS value{i}, bool_and(coalesce(enough{i}, false)) AS enough{i}, "
        f"sum({squares} - ({mean}) * ({mean})) AS variance{i}{by_fit}"
    )
