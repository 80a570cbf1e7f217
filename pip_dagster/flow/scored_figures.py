"""The figures of staged rows, part by part and segment by segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pip_dagster.errors import DeclarationError
from pip_dagster.flow.scored_rows import ScoredRows
from pip_dagster.sql.names import among, quote
from pip_dagster.statistics.arms import ArmRows, estimate
from pip_dagster.statistics.influence import Metric
from pip_dagster.statistics.likeness import likeness
from pip_dagster.statistics.loss import within_bounds
from pip_dagster.statistics.metrics.measure import Measured, measure
from pip_dagster.statistics.metrics.spec import MetricSpec, MetricValue, default_metric

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline


class FigureRow(NamedTuple):
    """The figures of all rows, or of one value of a segment, as `ledger.performance` keeps them."""

    segment: str | None
    segment_value: str | None
    rows: int
    labelled: int
    metrics: list[str]
    figures: list[float | None]
    counts: list[int]
    lows: list[float | None]
    highs: list[float | None]
    reweighted: list[float | None]
    sums: str


@dataclass(frozen=True)
class PartFigures:
    """A part's figures; `score_psi` and `unlike_rest` are of its labelled rows against all of its rows."""

    rows: list[FigureRow]
    score_psi: float | None
    unlike_rest: bool


def judged_metric(pipeline: Pipeline, spec: MetricSpec) -> str:
    """The figure by which performance is judged: the declared one, or the task's."""
    declared = pipeline.spec.monitoring.performance.metric if pipeline.spec.monitoring else None
    return declared or default_metric(spec)


def measure_parts(
    con: DuckDBPyConnection, pipeline: Pipeline, staged: ScoredRows, parts: Sequence[str]
) -> dict[str, PartFigures]:
    """Measure these parts of the staged rows, all in one statement for each kind of figure.

    Raises:
        DeclarationError: scores or outcomes that the metrics are not for, or no such metric.
    """
    if not parts:
        return {}
    relation = staged.relation
    if {*parts} < {*staged.parts}:
        relation = f"(FROM {relation} WHERE {among('pip_part', parts)})"
    segments = [*staged.segments.values()]
    sets = [("pip_part",), *(("pip_part", each) for each in segments)]
    by = ["pip_part", *segments]
    names = {column: name for name, column in staged.segments.items()}
    try:
        measured = {_place(each, names): each for each in measure(con, relation, staged.spec, by, sets)}
    except DeclarationError as error:
        raise DeclarationError(f"Pipeline {pipeline.spec.name}: {error}") from error
    if (metric := judged_metric(pipeline, staged.spec)) and measured:
        _check(pipeline, metric, next(iter(measured.values())))
    alike = {part: (likeness(*counts)) for part, counts in _by_bin(con, relation, staged.bins).items()}
    unlike = [part for part, of in alike.items() if of.unlike]
    weighted = _reweighted(con, staged, unlike, by, sets, names)
    intervals = _intervals(con, relation, staged.spec, metric)
    found: dict[str, PartFigures] = {}
    for place, rows in _counted(con, relation, by, sets, names):
        part = place[0]
        of = alike.get(part)
        figures = found.setdefault(
            part, PartFigures([], of.psi if of else None, unlike_rest=of is not None and of.unlike)
        )
        interval = {metric: intervals[part]} if part in intervals and place[1] is None else {}
        figures.rows.append(_row(place, rows, measured.get(place), weighted.get(place), interval))
    return found


_Place = tuple[str, str | None, str | None]  # part, segment, value


def _place(of: Measured, names: Mapping[str, str]) -> _Place:
    group = dict(of.group)
    part = group.pop("pip_part")
    for column, value in group.items():
        return part, names[column], value
    return part, None, None


def _row(
    place: _Place,
    rows: int,
    of: Measured | None,
    weighted: Measured | None,
    intervals: Mapping[str, tuple[float, float]],
) -> FigureRow:
    values: Mapping[str, MetricValue] = of.metrics if of else {}
    ends = {name: intervals.get(name, (value.low, value.high)) for name, value in values.items()}
    return FigureRow(
        *(place[1], place[2], rows, of.sums.rows if of else 0),
        metrics=[*values],
        figures=[value.value for value in values.values()],
        counts=[value.rows for value in values.values()],
        lows=[ends[name][0] for name in values],
        highs=[ends[name][1] for name in values],
        reweighted=[weighted.metrics[name].value for name in values] if weighted else [],
        sums=of.sums.to_text() if of else "",
    )


def _check(pipeline: Pipeline, metric: str, of: Measured) -> None:
    if metric not in of.metrics:
        raise DeclarationError(
            f"Pipeline {pipeline.spec.name}: monitoring.performance.metric is {metric!r}, which is not a figure of its "
            f"model; expected one of {', '.join(of.metrics)}."
        )


def _counted(
    con: DuckDBPyConnection,
    relation: str,
    by: Sequence[str],
    sets: Sequence[Sequence[str]],
    names: Mapping[str, str],
) -> list[tuple[_Place, int]]:
    """How many rows each group has, labelled or not: a value without any label is shown too."""
    listed = ", ".join(by)
    grouped = ", ".join(f"({', '.join(each)})" for each in sets)
    found: list[tuple[_Place, int]] = []
    flags = ", ".join(f"grouping({each})" for each in by)
    select = f"SELECT {listed}, {flags}, count(*) FROM {relation} GROUP BY GROUPING SETS ({grouped}) ORDER BY ALL"
    for row in con.execute(select).fetchall():
        values, own, rows = row[: len(by)], row[len(by) : 2 * len(by)], row[-1]
        segment = next((i for i in range(1, len(by)) if not own[i]), None)
        place = (values[0], None, None) if segment is None else (values[0], names[by[segment]], values[segment])
        found.append((place, rows))
    return sorted(found, key=lambda each: (each[0][0], each[0][1] or "", each[0][2] or ""))


def _by_bin(con: DuckDBPyConnection, relation: str, bins: int) -> dict[str, tuple[Any, Any]]:
    """Part → its labelled rows and all its rows by bin of the score; none where the model has no reference."""
    import numpy as np

    found: dict[str, tuple[Any, Any]] = {}
    if not bins:
        return found
    select = f"SELECT pip_part, pip_bin, count(pip_outcome), count(*) FROM {relation} GROUP BY ALL"
    for part, at, labelled, rows in con.execute(select).fetchall():
        counts = found.setdefault(part, (np.zeros(bins), np.zeros(bins)))
        if at is not None:
            counts[0][at], counts[1][at] = labelled, rows
    return found


def _reweighted(
    con: DuckDBPyConnection,
    staged: ScoredRows,
    parts: Sequence[str],
    by: Sequence[str],
    sets: Sequence[Sequence[str]],
    names: Mapping[str, str],
) -> dict[_Place, Measured]:
    """The same figures with each labelled row counting as many as there are of its score: of `parts` only."""
    if not parts or staged.spec.kind in ("ranking", "survival"):
        return {}
    rows = f"(FROM {staged.relation} WHERE {among('pip_part', parts)})"
    weights = (
        f"(SELECT pip_part, pip_bin, count(*) / nullif(count(pip_outcome), 0) AS pip_weight FROM {rows} GROUP BY ALL)"
    )
    weighted = (
        f"(SELECT r.*, w.pip_weight FROM {rows} r JOIN {weights} w USING (pip_part, pip_bin) WHERE pip_weight > 0)"
    )
    spec = replace(staged.spec, weight="pip_weight")
    return {_place(each, names): each for each in measure(con, weighted, spec, by, sets)}


def _intervals(con: DuckDBPyConnection, relation: str, spec: MetricSpec, metric: str) -> dict[str, tuple[float, float]]:
    """Part → the 95% interval of its metric by unit; none for a metric that has no influence function."""
    import numpy as np

    if metric not in get_args(Metric) or (spec.scale != "probability" and metric != "auc"):
        return {}
    labelled = f"FROM {relation} WHERE pip_outcome IS NOT NULL"
    names = [row[0] for row in con.execute(f"SELECT DISTINCT pip_part {labelled} ORDER BY pip_part").fetchall()]
    scores = ", ".join(f"{quote(each)} AS s{i}" for i, each in enumerate(spec.scores))
    columns = con.execute(
        f"SELECT dense_rank() OVER (ORDER BY pip_part) - 1 AS part, pip_outcome::DOUBLE AS y, pip_unit, {scores} "
        f"{labelled} ORDER BY part"
    ).fetchnumpy()
    ends = np.searchsorted(columns["part"], np.arange(len(names) + 1))
    found: dict[str, tuple[float, float]] = {}
    for name, start, end in zip(names, ends[:-1], ends[1:], strict=True):
        of = {column: np.asarray(values[start:end]) for column, values in columns.items()}
        by_score = [of[f"s{i}"].astype(np.float64) for i in range(len(spec.scores))]
        unit = np.unique(of["pip_unit"], return_inverse=True)[1]
        rows = ArmRows(
            of["y"], by_score[0] if len(by_score) == 1 else np.column_stack(by_score), unit, np.zeros_like(unit)
        )
        figure = estimate(metric, rows)  # type: ignore[arg-type]
        if figure and np.isfinite([figure.low, figure.high]).all():
            found[name] = within_bounds(metric, figure.low, figure.high)
    return found
