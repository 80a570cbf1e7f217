"""Charts as inline SVG that stretches to any width; its text is HTML beside it, so that it never shrinks.

Lines keep their width (`non-scaling-stroke`), and a marker is a line of no length with round ends, which stays round.
State is shown by height and word, never by color alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from markupsafe import Markup, escape

from pip_dagster.printable import printable
from pip_dagster.reporting.content import Figure

_WIDTH, _HEIGHT = 1000.0, 100.0
_FIXED = Markup('vector-effect="non-scaling-stroke"')


@dataclass(frozen=True)
class Cell:
    """A partition in a strip: its level (0 nothing known, 1 as it should be, 2 warning, 3 alarm), text and target."""

    level: int
    text: str
    target: str


@dataclass(frozen=True)
class Line:
    """Values by partition. `hollow`: which of them are drawn as hollow markers; `marked`: draw markers at all."""

    name: str
    style: str
    values: Sequence[Figure]
    hollow: Sequence[bool] = ()
    marked: bool = False


@dataclass(frozen=True)
class Scale:
    """The range of the vertical axis, and its labels from the top down."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[Figure], *, zero: bool = False, top: float | None = None) -> Scale:
        """Round numbers around the values; from `zero` where asked, up to `top` where it is given."""
        known = [value for value in values if value is not None]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        low = min(0.0, low) if zero else low
        high = high if top is None else max(high, top)
        if high <= low:
            high = low + (abs(low) or 1.0)
        step = _step((high - low) / 3)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = tuple(round(step * i, 10) for i in range(last, first - 1, -1))
        return cls(ticks[-1], ticks[0], ticks)

    def y(self, value: float) -> float:
        """Where a value is, from the top."""
        return _HEIGHT * (self.high - min(max(value, self.low), self.high)) / (self.high - self.low)


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


@dataclass(frozen=True)
class Plot:
    """What a line chart shows, over so many partitions."""

    scale: Scale
    count: int
    lines: Sequence[Line] = ()
    band: tuple[Sequence[Figure], Sequence[Figure]] | None = None
    bars: Sequence[Figure] = ()
    rules: Sequence[float] = field(default_factory=tuple)
    whiskers: Sequence[tuple[Figure, Figure]] = ()

    @property
    def width(self) -> float:
        """Of one partition."""
        return _WIDTH / max(1, self.count)

    def x(self, i: int) -> float:
        """The middle of a partition."""
        return self.width * (i + 0.5)


def draw(plot: Plot, text: str) -> Markup:
    """Bars, then the band, then rules and lines."""
    parts = [_grid(plot.scale)]
    if plot.bars:
        parts.append(_bars(plot))
    if plot.band:
        parts += [Markup('<path class="band" d="{}"/>').format(each) for each in _areas(plot, *plot.band)]
    for value in plot.rules:
        y = _n(plot.scale.y(value))
        parts.append(Markup('<path class="rule" d="M0 {}H1000" {}/>').format(y, _FIXED))
    parts += _whiskers(plot)
    for line in plot.lines:
        parts += _line(plot, line)
    return _svg(text, parts)


def _whiskers(plot: Plot) -> list[Markup]:
    """The interval of each value."""
    path = "".join(
        f"M{_n(plot.x(i))} {_n(plot.scale.y(low))}V{_n(plot.scale.y(high))}"
        for i, (low, high) in enumerate(plot.whiskers)
        if low is not None and high is not None
    )
    return [Markup('<path class="whisker" d="{}" {}/>').format(path, _FIXED)] if path else []


def _grid(scale: Scale) -> Markup:
    path = "".join(f"M0 {_n(scale.y(tick))}H1000" for tick in scale.ticks)
    return Markup('<path class="grid" d="{}" {}/>').format(path, _FIXED)


def _bars(plot: Plot) -> Markup:
    base, gap = plot.scale.y(max(0.0, plot.scale.low)), min(0.2, 8.0 / plot.width) if plot.count < 200 else 0.0
    path = ""
    for i, value in enumerate(plot.bars):
        if value is None:
            continue
        left, width, top = plot.width * (i + gap / 2), plot.width * (1 - gap), plot.scale.y(value)
        path += f"M{_n(left)} {_n(base)}V{_n(top)}h{_n(width)}V{_n(base)}z"
    return Markup('<path class="bars" d="{}"/>').format(path)


def _areas(plot: Plot, low: Sequence[Figure], high: Sequence[Figure]) -> list[str]:
    """The band, in pieces where it is interrupted."""
    areas = []
    known = [i for i in range(plot.count) if low[i] is not None and high[i] is not None]
    for run in _runs(known):
        top = " ".join(f"{_n(plot.x(i))} {_n(plot.scale.y(high[i] or 0.0))}" for i in run)
        bottom = " ".join(f"{_n(plot.x(i))} {_n(plot.scale.y(low[i] or 0.0))}" for i in reversed(run))
        areas.append(f"M{top} {bottom}z")
    return areas


def _line(plot: Plot, line: Line) -> list[Markup]:
    known = [i for i, value in enumerate(line.values) if value is not None]
    at = {i: (_n(plot.x(i)), _n(plot.scale.y(line.values[i] or 0.0))) for i in known}
    path = ""
    for run in _runs(known):
        path += "M" + " ".join(f"{at[i][0]} {at[i][1]}" for i in run)
        if len(run) == 1:
            path += "h0"
    parts = [Markup('<path class="line {}" d="{}" {}/>').format(line.style, path, _FIXED)]
    if line.marked:
        hollow = line.hollow or [False] * plot.count
        for style, wanted in (("dot", known), ("hole", [i for i in known if hollow[i]])):
            dots = "".join(f"M{at[i][0]} {at[i][1]}h0" for i in wanted)
            if dots:
                parts.append(Markup('<path class="{} {}" d="{}" {}/>').format(style, line.style, dots, _FIXED))
    return parts


def _runs(places: Sequence[int]) -> list[list[int]]:
    return [[i for _, i in run] for _, run in groupby(enumerate(places), key=lambda each: each[1] - each[0])]


def strip(cells: Sequence[Cell], text: str) -> Markup:
    """A lane of the timeline: a low bar is as it should be, a higher one a warning, one of full height an alarm."""
    parts: list[Markup] = []
    at = 0
    for (level, target), run in groupby(cells, key=lambda cell: (cell.level, cell.target if cell.level > 1 else "")):
        listed = list(run)
        width = len(listed)
        height = (8, 34, 67, 100)[level]
        shape = Markup('<path class="s{}" d="M{} 100v-{}h{}v{}z"/>').format(level, at, height, width, height)
        if target:
            title = Markup("<title>{}</title>").format(_text(listed[0].text))
            shape = Markup('<a href="#{}"><g>{}{}</g></a>').format(target, title, shape)
        parts.append(shape)
        at += width
    return _svg(text, parts, box=f"0 0 {max(1, len(cells))} 100", kind="strip")


def histogram(now: Sequence[float], training: Sequence[float] | None, text: str) -> Markup:
    """Filled bars of the window, and the outline of training."""
    top = max((*now, *(training or ())), default=0.0) or 1.0
    width = _WIDTH / max(1, len(now))
    path = "".join(
        f"M{_n(width * (i + 0.08))} 100V{_n(_HEIGHT * (1 - share / top))}h{_n(width * 0.84)}V100z"
        for i, share in enumerate(now)
    )
    parts = [Markup('<path class="bars" d="{}"/>').format(path)]
    if training:
        outline = "M0 100" + "".join(f"V{_n(_HEIGHT * (1 - share / top))}h{_n(width)}" for share in training) + "V100"
        parts.append(Markup('<path class="line outline" d="{}" {}/>').format(outline, _FIXED))
    return _svg(text, parts, kind="hist")


def spark(values: Sequence[Figure], rule: float, text: str) -> Markup:
    """A small line with the threshold."""
    known = [value for value in values if value is not None]
    scale = Scale(min(0.0, *known) if known else 0.0, max((*known, rule * 1.2)), ())
    plot = Plot(scale, len(values), [Line("", "main", values)], rules=[rule])
    y = _n(scale.y(rule))
    parts = [Markup('<path class="rule" d="M0 {}H1000" {}/>').format(y, _FIXED), *_line(plot, plot.lines[0])]
    return _svg(text, parts, kind="spark")


def interval(scale: Scale, value: Figure, low: Figure, high: Figure, rule: Figure, text: str) -> Markup:
    """A dot with its interval, on a horizontal scale."""

    def x(of: float) -> str:
        return _n(_WIDTH * (min(max(of, scale.low), scale.high) - scale.low) / (scale.high - scale.low))

    parts = []
    if rule is not None:
        parts.append(Markup('<path class="rule" d="M{} 0V100" {}/>').format(x(rule), _FIXED))
    if low is not None and high is not None:
        parts.append(Markup('<path class="line main" d="M{} 50H{}" {}/>').format(x(low), x(high), _FIXED))
    if value is not None:
        parts.append(Markup('<path class="dot main" d="M{} 50h0" {}/>').format(x(value), _FIXED))
    return _svg(text, parts, kind="interval")


def _svg(text: str, parts: Sequence[Markup], *, box: str = "0 0 1000 100", kind: str = "plot") -> Markup:
    return Markup(
        '<svg class="{}" viewBox="{}" preserveAspectRatio="none" role="img"><title>{}</title>{}</svg>'
    ).format(kind, box, _text(text), Markup("").join(parts))


def _text(text: str) -> Markup:
    return escape(printable(text))


def _n(value: float) -> str:
    """A coordinate: a tenth of a unit is less than a pixel."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text
