"""Whether a candidate is worse in one segment, corrected for the number of segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pip_dagster.statistics.influence import Metric, scarce_outcomes
from pip_dagster.statistics.interval import Gain, PairedRows, gain, t_below
from pip_dagster.statistics.judge import Reason, Rule, State, detectable, too_few

if TYPE_CHECKING:
    import numpy as np

# A loss in a segment counts beyond this many margins of all rows.
SEGMENT_MARGINS = 2


@dataclass(frozen=True)
class SegmentVerdict:
    """One value of a segment's column.

    `p` is the probability of such a loss, or a larger one, of an equal model; None where the segment is not judged.
    `detectable` is the smallest loss that is refused with a probability of 80%; where the segment is not judged, the
    loss that would have been, were it judged; None where nothing can be computed.
    """

    column: str
    value: str
    state: State
    reason: Reason | None
    rows: int
    outcomes: int
    units: int
    gain: Gain | None
    p: float | None
    detectable: float | None


@dataclass(frozen=True)
class SegmentsVerdict:
    """All segments, the smallest p first, then those that are not judged.

    `allowed` is the loss that is allowed in each, in the metric's unit. The state is refused where one segment's is,
    and unjudged where none is judged.
    """

    state: State
    allowed: float
    segments: tuple[SegmentVerdict, ...]

    @property
    def judged(self) -> tuple[SegmentVerdict, ...]:
        """The segments with enough outcomes and units."""
        return tuple(each for each in self.segments if each.state != "unjudged")

    @property
    def refused(self) -> tuple[SegmentVerdict, ...]:
        """The segments in which the candidate is worse."""
        return tuple(each for each in self.segments if each.state == "refused")


def judge_segments(
    metric: Metric,
    rows: PairedRows,
    segments: Mapping[str, tuple[Sequence[str], np.ndarray]],
    margin: float,
    rule: Rule | None = None,
) -> SegmentsVerdict:
    """Test every value of every segment's column: Holm's step-down (1979) over one-sided p values of Student's t.

    A segment is refused where Holm rejects it and its gain is below -2M. The family's level is the one-sided level of
    the interval over all rows, so that both gates together refuse an equal model at most twice that often: 5% with
    the default confidence. Segments with fewer than 20 rows of the scarcest outcome or 10 units are not judged, and
    do not count in the correction.

    Args:
        metric: any but `mean`.
        rows: labelled rows of both models.
        segments: for each column its values, and for each row (rows,) the position of its value; -1 for no segment.
        margin: M of all rows, in the metric's unit (`judge.margin`). With 0, no segment is judged: there is no scale.
        rule: the defaults of `Rule` when None.

    Raises:
        DeclarationError: outcomes or scores that are not finite or that the metric is not for.
    """
    rule = rule or Rule()
    allowed, level = SEGMENT_MARGINS * margin, (1 - rule.confidence) / 2
    found = [
        _measure(metric, column, value, rows.take(at), rule if margin > 0 else None)
        for column, (values, codes) in segments.items()
        for value, at in _groups(values, codes)
    ]
    judged = sorted((each for each in found if each.p is not None), key=lambda each: each.p or 0.0)
    tests = len(judged)
    settled: list[SegmentVerdict] = []
    beyond_chance = rejected([each.p or 0.0 for each in judged], level)
    for i, each in enumerate(judged):
        worse = i < beyond_chance and each.gain is not None and each.gain.gain < -allowed
        settled.append(replace(each, state="refused" if worse else "passed", reason="worse" if worse else None))
    settled.extend(each for each in found if each.p is None)
    powered = tuple(replace(each, detectable=_power(each, allowed, level, tests)) for each in settled)
    state: State = "unjudged" if not tests else "passed"
    return SegmentsVerdict("refused" if any(each.state == "refused" for each in powered) else state, allowed, powered)


def rejected(p: Sequence[float], level: float) -> int:
    """How many hypotheses Holm's step-down (1979) rejects at this level of all together: the first of p, ascending."""
    return next((i for i, each in enumerate(p) if not each <= level / (len(p) - i)), len(p))


def _groups(values: Sequence[str], codes: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Each value with the positions of its rows; one sort, however many values there are."""
    import numpy as np

    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(values) + 1))
    for i, value in enumerate(values):
        yield value, order[bounds[i] : bounds[i + 1]]


def _measure(metric: Metric, column: str, value: str, rows: PairedRows, rule: Rule | None) -> SegmentVerdict:
    found = gain(metric, rows, rule.confidence) if rule else None
    outcomes, units = scarce_outcomes(metric, rows.y, rows.unit)
    units = found.spread.units if found else units
    reason: Reason | None = too_few(outcomes, units) if found else "few_outcomes" if rule else "no_scale"
    p = None if reason or found is None else _p(found)
    return SegmentVerdict(column, value, "unjudged", reason, len(rows), outcomes, units, found, p, None)


def _p(found: Gain) -> float:
    if found.se:
        return t_below(found.gain / found.se, found.spread.df)
    return 0.0 if found.gain < 0 else 1.0  # no row varies: the gain is exact


def _power(each: SegmentVerdict, allowed: float, level: float, tests: int) -> float | None:
    if each.gain is None:
        return None
    share = level / (tests + (each.p is None))
    return detectable(each.gain, allowed, 1 - share)
