"""Which charts a page has: the figures of a content as charts, with their words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.reporting import charts
from pip_dagster.reporting.charts import Cell, Line, Plot, Scale
from pip_dagster.reporting.content import ColumnLine, Day, Distribution, MetricSeries, RateSeries, Report, SegmentLine

if TYPE_CHECKING:
    from markupsafe import Markup

    from pip_dagster.reporting.compared import Comparison

_FEATURES = 10
_SEGMENTS = 20
_GAPS = 30
_POINT = 0.01


@dataclass(frozen=True)
class Chart:
    """A chart: its drawing, the labels of its axes from the top down and from left to right."""

    svg: Markup
    y: tuple[str, ...] = ()
    x: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lane:
    """A row of the timeline."""

    name: str
    svg: Markup


class Charts:
    """The charts of a report."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.features = [column for column in report.columns if column.kind == "feature"][:_FEATURES]
        self.threshold = float(_threshold(report, "psi", "0.1"))
        self.history = _threshold(report, "history", "28")

    def anchor(self, partition: str) -> str:
        """The id of a partition's row."""
        return anchor(partition)

    @property
    def axis(self) -> tuple[str, ...]:
        """The first, middle and last partition."""
        return _axis([day.partition for day in self.report.days])

    def timeline(self) -> list[Lane]:
        """A lane for each question that is asked of a partition."""
        days = self.report.days
        lanes = [("scored", _built), ("quality", _quality)]
        if "drift" not in self.report.unavailable:
            lanes.append(("drift", _drift))
        if any(day.labels for day in days):
            lanes.append(("labels", _labels))
        return [Lane(name, _strip(name, [of(day) for day in days])) for name, of in lanes]

    def rows(self) -> Chart:
        """Rows scored."""
        values = [day.rows if day.is_live else None for day in self.report.days]
        return self._bars(values, "Rows scored by partition")

    @property
    def has_quarantine(self) -> bool:
        """Whether a row of the period was quarantined."""
        return any(day.quarantined for day in self.report.days)

    def quarantined(self) -> Chart:
        """The share of rows in quarantine."""
        values = [
            (day.quarantined or 0) / total if (total := (day.rows or 0) + (day.quarantined or 0)) else None
            for day in self.report.days
        ]
        return self._bars(values, "Share of rows in quarantine by partition", percent=True)

    def seconds(self) -> Chart:
        """How long scoring took."""
        return self._bars([day.seconds for day in self.report.days], "Seconds of scoring by partition")

    def _bars(self, values: Sequence[float | None], text: str, *, percent: bool = False) -> Chart:
        scale = Scale.of(values, zero=True, top=0.01 if percent else None)
        svg = charts.draw(Plot(scale, len(values), bars=values), _described(text, values, self.report.days))
        return Chart(svg, _labels_of(scale, percent=percent), self.axis)

    def rate(self, series: RateSeries) -> Chart:
        """A decision's share, or the mean score, in the band of what was usual."""
        scale = Scale.of((*series.values, *series.low, *series.high))
        plot = Plot(scale, len(series.values), [Line(series.name, "main", series.values, marked=_few(series.values))])
        plot = Plot(plot.scale, plot.count, plot.lines, band=(series.low, series.high))
        svg = charts.draw(plot, _described(f"{series.name} by partition", series.values, self.report.days))
        return Chart(svg, _labels_of(scale, percent=series.is_rate), self.axis)

    def metric(self, series: MetricSeries) -> Chart:
        """Measured with solid and hollow markers, estimated as a band, the reference as a rule."""
        points = series.points
        values = [point.value for point in points]
        low, high = [point.estimate_low for point in points], [point.estimate_high for point in points]
        rules = [series.reference] if series.reference is not None else []
        whiskers = [(point.low, point.high) for point in points]
        scale = Scale.of((*values, *low, *high, *rules, *(each for pair in whiskers for each in pair)))
        hollow = [point.maturity != "mature" for point in points]
        line = Line(series.metric, "main", values, hollow, marked=True)
        estimate = Line("estimate", "second", [point.estimate for point in points])
        svg = charts.draw(
            Plot(scale, len(points), [estimate, line], (low, high), rules=rules, whiskers=whiskers),
            f"{series.metric} by partition: {sum(value is not None for value in values)} measured",
        )
        return Chart(svg, _labels_of(scale), _axis([point.partition for point in points]))

    def segment_scale(self, series: MetricSeries) -> Scale:
        """From the lowest end of an interval to the highest."""
        shown = series.segments[:_SEGMENTS]
        known = [each for line in shown for each in (line.metric, line.low, line.high) if each is not None]
        low, high = min(known, default=0.0), max(known, default=1.0)
        return Scale(low, high if high > low else low + 1.0, (high, low))

    def segments(self, series: MetricSeries) -> list[tuple[SegmentLine, Markup]]:
        """The worst segments with their intervals, on one scale."""
        worst = series.segments[:_SEGMENTS]
        scale = self.segment_scale(series)
        return [
            (
                line,
                charts.interval(
                    scale, line.metric, line.low, line.high, series.reference, f"{series.metric} of {line.value}"
                ),
            )
            for line in worst
        ]

    def weeks(self, of: Distribution) -> list[tuple[str, str, int, Markup]]:
        """Scores week by week against training."""
        return [
            (
                week.first,
                week.last,
                week.rows,
                charts.histogram(
                    week.shares[:-2], of.training[:-2] if of.training else None, f"{of.name}, {week.first}"
                ),
            )
            for week in of.weeks
        ]

    def spark(self, column: ColumnLine) -> Markup:
        """PSI beyond noise by partition."""
        known = [value for value in column.series if value is not None]
        text = f"{column.name}: PSI beyond noise by partition, " + (
            f"{known[-1]:.3g} at the end, at most {max(known):.3g}" if known else "none"
        )
        return charts.spark(column.series, self.threshold, text)

    def gaps(self) -> list[ColumnLine]:
        """Features with values that training never had, or of which another share is missing than in training."""
        return [
            each
            for each in self.report.columns
            if each.kind == "feature"
            and (each.unseen or abs((each.missing_now or 0.0) - (each.missing_training or 0.0)) > _POINT)
        ][:_GAPS]

    def histogram(self, column: ColumnLine) -> Markup:
        """The newest seven partitions together against training."""
        return charts.histogram(column.now, column.training, f"{column.name}: shares now and in training")

    def lift(self) -> Chart:
        """Mean outcome by tenth of the scores."""
        values = [line.mean_outcome for line in self.report.lift]
        scale = Scale.of(values, zero=True)
        svg = charts.draw(Plot(scale, len(values), bars=values), "Mean outcome by tenth of the scores, highest first")
        return Chart(svg, _labels_of(scale), ("highest tenth", "lowest tenth"))

    def reliability(self) -> Chart:
        """Mean outcome by mean score."""
        bins = self.report.calibration.bins if self.report.calibration else ()
        outcomes, scores = [line.mean_outcome for line in bins], [line.mean_score for line in bins]
        scale = Scale.of((*outcomes, *scores), zero=True)
        lines = [Line("as predicted", "second", scores), Line("outcome", "main", outcomes, marked=True)]
        svg = charts.draw(Plot(scale, len(bins), lines), "Mean outcome and mean score by bin of scores")
        return Chart(svg, _labels_of(scale), ("lowest scores", "highest scores"))


class Pair:
    """The charts of a comparison."""

    def __init__(self, found: Comparison) -> None:
        self.found = found

    def histogram(self, of: Distribution) -> Markup:
        """Scores of the second side against those of the first."""
        first, second = of.weeks
        return charts.histogram(second.shares, first.shares, f"{of.name}: {second.first} against {first.first}")

    def means(self) -> Chart:
        """The mean score of both, by partition."""
        days = self.found.days
        a, b = [day.mean_a for day in days], [day.mean_b for day in days]
        scale = Scale.of((*a, *b))
        first, second = (side.name for side in self.found.sides)
        lines = [Line(first, "second", a), Line(second, "main", b)]
        svg = charts.draw(Plot(scale, len(days), lines), f"Mean score of {first} and of {second} by partition")
        return Chart(svg, _labels_of(scale), _axis([day.partition for day in days]))


def anchor(partition: str) -> str:
    """An id that any key fits."""
    return "p" + hashlib.sha256(partition.encode("utf-8", "backslashreplace")).hexdigest()[:8]


def _threshold(report: Report, name: str, default: str) -> str:
    return next((each.value for each in report.thresholds if each.name == f"monitoring.{name}"), default)


def _axis(keys: Sequence[str]) -> tuple[str, ...]:
    if len(keys) < 3:
        return tuple(keys)
    return (keys[0], keys[len(keys) // 2], keys[-1])


def _few(values: Sequence[object]) -> bool:
    return len(values) <= 60


def _labels_of(scale: Scale, *, percent: bool = False) -> tuple[str, ...]:
    return tuple(f"{100 * tick:.3g}%" if percent else f"{tick:,.6g}" for tick in scale.ticks)


def _described(text: str, values: Sequence[float | None], days: Sequence[Day]) -> str:
    known = [(value, day.partition) for value, day in zip(values, days, strict=True) if value is not None]
    if not known:
        return f"{text}: none"
    (low, low_at), (high, high_at) = min(known), max(known)
    return f"{text}: from {low:,.4g} ({low_at}) to {high:,.4g} ({high_at}), at the end {known[-1][0]:,.4g}"


def _strip(name: str, cells: Sequence[Cell]) -> Markup:
    counts = [sum(cell.level == level for cell in cells) for level in (3, 2, 1, 0)]
    words = ("alarm", "warning", "ok", "not known")
    listed = ", ".join(f"{count} {word}" for count, word in zip(counts, words, strict=True) if count)
    return charts.strip(cells, f"{name}: {listed or 'no partition'}")


def _cell(level: int, day: Day, text: str) -> Cell:
    return Cell(level, f"{day.partition}: {text}", anchor(day.partition))


def _built(day: Day) -> Cell:
    level = {"live": 1, "provisional": 2, "missing": 2}.get(day.status, 3)
    text = day.status + (f", {day.failed_attempts} attempts failed" if day.failed_attempts else "")
    return _cell(max(level, 2) if day.reason and day.is_live else level, day, text)


def _quality(day: Day) -> Cell:
    if day.status == "missing":
        return _cell(0, day, "nothing scored")
    if day.status == "blocked" or day.critical:
        return _cell(3, day, ", ".join(day.unmet[:3]) or "blocked")
    return _cell(2 if day.unmet else 1, day, ", ".join(day.unmet[:3]) or "as expected")


def _drift(day: Day) -> Cell:
    level = {"alarm": 3, "noted": 2, "ok": 1}.get(day.drift or "", 0)
    return _cell(level, day, ", ".join(day.drifted[:5]) or day.drift or "not profiled")


def _labels(day: Day) -> Cell:
    level = {"mature": 1, "overdue": 3, "maturing": 2}.get(day.labels or "", 0)
    return _cell(level, day, day.labels or "not known")
