"""What `pip-dagster performance` prints: windows, partitions, and one partition with its segments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pip_dagster.cli.cells import Share, figure
from pip_dagster.cli.output import echo, show_json, show_table
from pip_dagster.cli.table import Heading
from pip_dagster.errors import DeclarationError
from pip_dagster.monitoring.finding import is_value
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.ledger.performance import PerformanceRow
    from pip_dagster.monitoring.coverage import Coverage
    from pip_dagster.monitoring.finding import Finding
    from pip_dagster.monitoring.performance import Performance, WindowFigure

_INTERVAL = Heading("95% interval", optional=True, whole=True)
_OF_BIAS = "The interval of bias is by chance of the outcomes alone; the others are by unit."
_SEGMENTS = 50  # values that are shown, those with the most rows
_STATES = ("mature", "maturing", "waiting", "overdue")


def show_windows(pipeline: str, of: Performance, findings: Sequence[Finding], as_json: bool) -> None:
    """The newest windows, the newest 28 partitions by version, arm and segment, and the verdict."""
    windows, groups = _windows(of), _groups(of)
    newest = min(28, len({each.partition_key for each in of.partitions if each.state == "mature"}))
    if as_json:
        figures = [asdict(each) for each in (*windows, *groups)]
        show_json(
            {"metric": of.metric, "windows": figures, "labels": _counts(of), "findings": [*map(asdict, findings)]}
        )
        return
    columns = ["partitions", "rows", "labelled", of.metric, _INTERVAL]
    rows = [[f"{each.partitions} to {each.last}", *_figure(each)] for each in windows]
    show_table(f"{pipeline}: the newest partitions that count", columns, rows)
    if groups:
        largest = sorted((each for each in groups if each.segment), key=lambda each: -each.rows)[:_SEGMENTS]
        shown = [each for each in groups if not each.segment or each in largest]
        show_table(
            f"\nThe newest {newest}, by version, arm and segment",
            ["rows of", *columns[1:]],
            [[_name(each), *_figure(each)] for each in shown],
        )
        if left := len(groups) - len(shown):
            echo(f"{plural(left, 'segment value')} with fewer rows: --json lists them.")
    counts = _counts(of)
    echo("Labels: " + ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state]) + ".")
    for each in findings:
        if each.state == "warning":
            echo(f"Warning: {each.cause}.")
    alarms = [each for each in findings if each.state == "alarm"]
    for each in alarms:
        echo(
            f"In alarm: {each.subject}: {each.cause}. Without a change, {each.chance or 0:.2%} of partitions have this."
        )
    judged = [each for each in findings if each.rule != "labels"]
    if not alarms and any(each.state == "ok" for each in judged):
        echo("No loss beyond what is allowed.")
    elif not alarms:
        echo(f"Not judged yet: {judged[0].cause if judged else 'no labelled partition counts yet'}.")


def _windows(of: Performance) -> list[WindowFigure]:
    from pip_dagster.monitoring.performance import WINDOWS

    counting = of.counting()
    lengths = [each for each in WINDOWS if each <= len(counting)]
    return [figure for length in lengths if (figure := of.window(counting[-length:])) is not None]


def _groups(of: Performance) -> list[WindowFigure]:
    """The newest 28 partitions by version and arm, if there are several, and by segment."""
    from pip_dagster.monitoring.performance import WINDOWS

    found: list[WindowFigure | None] = []
    arms = dict.fromkeys(each.part.arm for each in of.partitions)
    newest = of.counting()[-max(WINDOWS) :]
    versions = sorted({each.part.model_version for each in newest})
    if len(versions) > 1:
        found += [of.window([each for each in newest if each.part.model_version == v]) for v in versions]
    found += [of.window(of.counting(arm)[-max(WINDOWS) :]) for arm in arms if len(arms) > 1]
    found += [of.window(newest, segment) for segment in of.segments(newest)]
    return [each for each in found if each is not None]


def show_partitions(pipeline: str, of: Performance, last: int, as_json: bool) -> None:
    """The newest partitions with the state of their labels."""
    starts = sorted({each.part.live.start for each in of.partitions})[-last:]
    shown = [each for each in of.partitions if each.part.live.start >= starts[0]]
    if as_json:
        show_json([_plain(of, each) for each in shown])
        return
    rows = []
    for each in shown:
        figure = (
            of.window([each])
            if each.labelled and each.evaluation and each.evaluation.evaluation_id in of.rows
            else None
        )
        numbers = _figure(figure) if figure else [each.rows, Share(each.coverage), None, None]
        arm = "" if each.part.arm == "champion" else f" {each.part.arm}"
        rows.append(
            [each.partition_key, f"v{each.part.model_version}{arm}", each.state, *numbers, ", ".join(_marks(each))]
        )
    columns = ["partition", "version", "labels", "rows", "labelled", of.metric, _INTERVAL, Heading("note", below=True)]
    show_table(f"{pipeline}: performance", columns, rows)


def show_partition(pipeline: str, of: Performance, key: str, as_json: bool) -> None:
    """All figures of one partition."""
    shown = [each for each in of.partitions if each.partition_key == key]
    if not shown:
        raise DeclarationError(f"Pipeline {pipeline}: partition {key!r} is not live.")
    if as_json:
        show_json([_plain(of, each, segments=True) for each in shown])
        return
    for each in shown:
        notes = "".join(f"; {mark}" for mark in _marks(each))
        arm = "" if each.part.arm == "champion" else f", arm {each.part.arm}"
        counts = f"{each.labelled:,} of {each.rows:,} rows labelled"
        title = f"{pipeline}, partition {key}, v{each.part.model_version}{arm}: {counts}"
        rows = of.rows.get(each.evaluation.evaluation_id, []) if each.evaluation else []
        echo(f"{title}, {each.state}{notes}")
        for row in rows:
            if row.segment is None:
                show_table(
                    None,
                    ["figure", "value", "rows", _INTERVAL, Heading("reweighted", optional=True)],
                    _figures(row),
                )
                if "bias" in row.metrics and of.metric != "bias" and row.lows[row.metrics.index("bias")] is not None:
                    echo(_OF_BIAS)
        segments = [
            [f"{row.segment} {is_value(row.segment_value)}", row.rows, row.labelled, _of_metric(row, of.metric)]
            for row in rows
            if row.segment
        ]
        if segments:
            show_table("\nBy segment", ["segment", "rows", "labelled", of.metric], segments)


def _figures(row: PerformanceRow) -> Iterable[list[Any]]:
    for i, name in enumerate(row.metrics):
        reweighted = row.reweighted[i] if row.reweighted else None
        yield [
            name,
            row.figures[i],
            row.counts[i],
            _interval(row.lows[i], row.highs[i]),
            reweighted,
        ]


def _of_metric(row: PerformanceRow, metric: str) -> float | None:
    return row.figures[row.metrics.index(metric)] if metric in row.metrics else None


def _plain(of: Performance, each: Coverage, *, segments: bool = False) -> dict[str, Any]:
    """A partition for machines."""
    evaluation = each.evaluation
    rows = of.rows.get(evaluation.evaluation_id, []) if evaluation else []
    figures = [
        {"segment": row.segment, "segment_value": row.segment_value, "rows": row.rows, "labelled": row.labelled}
        | {"metrics": dict(zip(row.metrics, row.figures, strict=True))}
        for row in rows
        if segments or row.segment is None
    ]
    return {
        "partition_key": each.partition_key,
        "scoring_id": each.part.live.scoring_id,
        "model_version": each.part.model_version,
        "arm": each.part.arm,
        "state": each.state,
        "rows": each.rows,
        "labelled": each.labelled,
        "coverage": each.coverage,
        "restated": each.restated,
        "unlike_rest": each.unlike_rest,
        "labels_digest": evaluation.labels_digest if evaluation else None,
        "evaluated_at": evaluation.evaluated_at if evaluation else None,
        "figures": figures,
    }


def _marks(each: Coverage) -> list[str]:
    marks = ["labelled rows are not like the rest"] if each.unlike_rest else []
    return [*marks, *(["restated"] if each.restated else [])]


def _counts(of: Performance) -> dict[str, int]:
    """Partitions by the state of their labels; one whose arms differ counts in each."""
    return {state: len({each.partition_key for each in of.partitions if each.state == state}) for state in _STATES}


def _name(of: WindowFigure) -> str:
    if of.segment is not None:
        return f"{of.segment} {is_value(of.segment_value)}"
    return of.arm if of.arm != "champion" else f"v{of.version}"


def _figure(of: WindowFigure) -> list[Any]:
    share = Share(of.labelled / of.rows if of.rows else 0.0)
    return [of.rows, share, of.value, _interval(of.low, of.high)]


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{figure(low)} to {figure(high)}"
