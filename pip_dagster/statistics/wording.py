"""What the statistics of a gate found, in sentences for reports and messages."""

from __future__ import annotations

from pip_dagster.plural import plural
from pip_dagster.statistics.interval import Gain
from pip_dagster.statistics.judge import LEAST_OUTCOMES, LEAST_UNITS, GateVerdict
from pip_dagster.statistics.paired import Drift
from pip_dagster.statistics.segments import SegmentsVerdict, SegmentVerdict

_SHOWN = 3  # segments in a sentence; the report has all


def describe(verdict: GateVerdict) -> str:
    """Write what was measured, what is allowed, and what the labels can show."""
    found, allowed = verdict.gain, verdict.margin
    if found is None or allowed is None:
        return _too_few(verdict.reason, verdict.rows, verdict.outcomes, verdict.units)
    parts = [_measured(found), f"{100 * verdict.rule.confidence:.4g}% interval {found.low:+.4f} to {found.high:+.4f}"]
    spread = found.spread
    parts[0] += f" on {found.rows:,} labelled rows of {spread.units:,} units, worth {spread.effective_rows:,.0f}"
    parts[0] += " independent rows"
    if allowed.value:
        floor = ", the floor, because the champion hardly beats the base rate" if allowed.floored else ""
        parts.append(f"a loss of {allowed.value:.4f} is allowed{floor}")
    if verdict.state == "unjudged":
        parts.append(_too_few(verdict.reason, verdict.rows, verdict.outcomes, verdict.units))
    if verdict.reason == "not_shown":
        parts.append("the interval includes a larger loss, which `strict` refuses")
    if verdict.detectable is not None:
        parts.append(f"a loss of {verdict.detectable:.4f} is refused with a probability of 80%")
    if verdict.state != "passed" and verdict.needed is not None and verdict.needed > verdict.rows:
        parts.append(f"about {verdict.needed:,} labelled rows are needed")
    if spread.days == 1:
        parts.append("the labels are of one partition, so the interval does not cover differences between partitions")
    return "; ".join(parts)


def describe_interim(verdict: GateVerdict) -> str:
    """Write it in short for a canary, which is judged again and again."""
    found, allowed = verdict.gain, verdict.margin
    if found is None or allowed is None:
        return describe(verdict)
    text = f"{_measured(found)}, {100 * verdict.rule.confidence:.4g}% interval {found.low:+.4f} to {found.high:+.4f}, "
    text += f"on {found.rows:,} labelled rows of {found.spread.units:,} units; a loss of {allowed.value:.4f} is allowed"
    if verdict.state != "unjudged":
        return text
    return f"{text}; {_too_few(verdict.reason, verdict.rows, verdict.outcomes, verdict.units)}"


def describe_segments(verdict: SegmentsVerdict) -> str:
    """Write how many segments are worse, which, and how many are not judged."""
    judged, refused = verdict.judged, verdict.refused
    unjudged = len(verdict.segments) - len(judged)
    if not judged:
        return f"none of {unjudged:,} segments has enough labelled rows or units to be judged"
    shown = "; ".join(_segment(each) for each in (refused or judged)[: _SHOWN if refused else 1])
    more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
    found = f"{len(refused)} of {len(judged)} segments lose more than {verdict.allowed:.4f} beyond chance"
    left = f"; {unjudged:,} with too few labels are not judged" if unjudged else ""
    return f"{found}; {'' if refused else 'the least likely is '}{shown}{more}{left}"


def describe_drift(output: str, found: Drift, limit: float) -> str:
    """Write PSI, its noise and its limit."""
    return (
        f"PSI of {output} is {found.psi:.3f} over the champion's deciles on {plural(found.rows, 'row')}, of which "
        f"{found.noise:.3f} is noise (p = {found.p:.2g}); {limit:g} beyond noise is allowed"
    )


def _measured(found: Gain) -> str:
    return f"{found.metric} {found.candidate:.4f}, champion {found.champion:.4f}: gain {found.gain:+.4f}"


def _segment(each: SegmentVerdict) -> str:
    assert each.gain is not None and each.p is not None
    return f"{each.column} {each.value}: {_measured(each.gain)} on {each.rows:,} labelled rows (p = {each.p:.2g})"


def _too_few(reason: str | None, rows: int, outcomes: int, units: int) -> str:
    if not rows:
        return "no replayed row has a label"
    return {
        "few_outcomes": f"{outcomes:,} of {rows:,} labelled rows have the scarcest outcome; "
        f"{LEAST_OUTCOMES} are needed",
        "few_units": f"the labelled rows are of {units:,} units; {LEAST_UNITS} are needed",
        "no_scale": "all labelled outcomes are equal, so no loss can be measured",
    }.get(reason or "", "the labels are too few to judge")
