"""Whether a candidate is worse than the champion on labelled rows, by more than is allowed, and not by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pip_dagster.statistics.influence import HIGHER_IS_BETTER, Metric, base_value, scarce_outcomes
from pip_dagster.statistics.interval import Gain, PairedRows, gain, t_quantile

if TYPE_CHECKING:
    import numpy as np

# Below these a standard error means nothing.
LEAST_OUTCOMES = 20
LEAST_UNITS = 10
# Of the margin: with a standard error up to here, a loss of four margins is refused with a probability of 80%.
MOST_SE = 1.43
# A champion is credited with at least this much over the base rate: AUC and F1 as such, others as a share of its loss.
_LEAST_EXCESS = 0.1
_POWER_80 = 0.8416  # the normal quantile of 80%

State = Literal["passed", "refused", "unjudged"]
Reason = Literal["worse", "not_shown", "few_outcomes", "few_units", "imprecise", "no_scale"]


@dataclass(frozen=True)
class Rule:
    """What is allowed. `max_loss`: the share of the champion's gain over the base rate that a candidate may lose.

    With `strict` a candidate passes only where the interval excludes a loss beyond the margin. Without it, a candidate
    is refused where the interval excludes a gain and the loss exceeds the margin.
    """

    max_loss: float = 0.05
    confidence: float = 0.95
    strict: bool = False


@dataclass(frozen=True)
class Margin:
    """The loss that is allowed, in the metric's unit: `Rule.max_loss` times the larger of `excess` and its floor.

    `excess` is the champion's gain over the base rate; `floored` where it is below the floor.
    """

    value: float
    excess: float
    floored: bool


@dataclass(frozen=True)
class GateVerdict:
    """What the labelled rows show.

    `reason` is None where it is passed. `gain` and `margin` are None where the metric has no value. `detectable` is the
    smallest loss that is refused with a probability of 80% at this standard error; `needed` is how many labelled rows
    of this kind the rule needs, None where that cannot be estimated.
    """

    rule: Rule
    state: State
    reason: Reason | None
    rows: int
    outcomes: int
    units: int
    gain: Gain | None = None
    margin: Margin | None = None
    detectable: float | None = None
    needed: int | None = None


def margin(metric: Metric, y: np.ndarray, champion: float, max_loss: float) -> Margin:
    """Return the loss that is allowed.

    The excess on the same rows is AUC - 1/2, the loss of the base rate less the champion's, sd(y) - RMSE, the entropy
    of the classes' shares less the log loss, or the accuracy or macro F1 over the most frequent class's. Its floor is
    0.1 for AUC and F1, and a tenth of the base rate's loss (or error) for others: with the default of 5%, a margin of
    at least 0.005 or 0.5%. For AUC the margin is `max_loss` of the Gini coefficient, halved.

    Args:
        metric: any but `mean`.
        y: outcomes (rows,), at least one.
        champion: the champion's metric on the same rows.
        max_loss: between 0 and 1.
    """
    base = base_value(metric, y)
    excess = champion - base if metric in HIGHER_IS_BETTER else base - champion
    scale = {"auc": 1.0, "ovr_auc": 1.0, "macro_f1": 1.0, "accuracy": 1 - base}.get(metric, base)
    least = _LEAST_EXCESS * scale
    return Margin(max_loss * max(excess, least), excess, excess < least)


def judge(metric: Metric, rows: PairedRows, rule: Rule | None = None) -> GateVerdict:
    """Decide over all labelled rows (rule D, or rule C with `strict`; docs/gate-statistics.md).

    D: refused where `high` < 0 and the gain is below -M. Passed where `low` > -M, because a larger loss is excluded,
    and where SE / M is at most 1.43. Otherwise unjudged: that depends on how many labels there are, not on luck. C:
    passed where `low` > -M, and refused otherwise. Both are unjudged with fewer than 20 rows of the scarcest outcome
    (see `scarce_outcomes`), fewer than 10 units, or outcomes that give no scale (all equal).

    Args:
        metric: any but `mean`.
        rows: labelled rows of both models; none is allowed.
        rule: the defaults of `Rule` when None.

    Raises:
        DeclarationError: outcomes or scores that are not finite or that the metric is not for.
    """
    rule = rule or Rule()
    found = gain(metric, rows, rule.confidence)
    outcomes, _ = scarce_outcomes(metric, rows.y, rows.unit)
    units = found.spread.units if found else 0
    if found is None:
        return GateVerdict(rule, "unjudged", "few_outcomes", len(rows), outcomes, units)
    allowed = margin(metric, rows.y, found.champion, rule.max_loss)
    state, reason = _state(found, allowed.value, outcomes, rule)
    return GateVerdict(
        *(rule, state, reason, len(rows), outcomes, units, found, allowed),
        detectable=detectable(found, allowed.value, (1 + rule.confidence) / 2),
        needed=labels_needed(found, allowed.value, outcomes, strict=rule.strict),
    )


def too_few(outcomes: int, units: int) -> Reason | None:
    """Return why nothing can be judged on so few rows of the scarcest outcome or so few units; None where it can."""
    if outcomes < LEAST_OUTCOMES:
        return "few_outcomes"
    return "few_units" if units < LEAST_UNITS else None


def detectable(found: Gain, least: float, probability: float) -> float | None:
    """Return the smallest loss that is refused with a probability of 80%, in the metric's unit.

    max((t + 0.84) SE, `least` + 0.84 SE), where t is Student's quantile: a loss is refused where it is significant and
    beyond `least`. A candidate that is much worse has a larger standard error than an equal one, up to 2.5 times. None
    where the standard error is unknown.

    Args:
        found: the comparison.
        least: the margin, in the metric's unit.
        probability: the one-sided level of the test, such as 0.975.
    """
    se = found.se
    if se == float("inf"):
        return None
    return max((t_quantile(probability, found.spread.df) + _POWER_80) * se, least + _POWER_80 * se)


def labels_needed(found: Gain, allowed: float, outcomes: int, *, strict: bool) -> int | None:
    """Return how many labelled rows of this kind the rule needs.

    n (SE / M / 1.43)² for rule D, which is (2.8 s / 4M)² · `deff`, and 16 times as many for rule C. At least enough for
    20 rows of the scarcest outcome. This assumes more rows of the same mixture of units and days. None where the
    standard error or the scale is unknown.

    Args:
        found: the comparison on the rows there are.
        allowed: the margin M, in the metric's unit.
        outcomes: how many rows of the scarcest outcome are among them.
        strict: for rule C.
    """
    import math

    if found.se == float("inf") or not allowed or not outcomes:
        return None
    least = found.rows * LEAST_OUTCOMES / outcomes
    wanted = found.rows * (found.se / allowed / MOST_SE) ** 2 * (16 if strict else 1)
    return math.ceil(max(least, wanted) - 1e-9)


def _state(found: Gain, allowed: float, outcomes: int, rule: Rule) -> tuple[State, Reason | None]:
    if few := too_few(outcomes, found.spread.units):
        return "unjudged", few
    if not allowed:
        return "unjudged", "no_scale"
    if found.high < 0 and found.gain < -allowed:
        return "refused", "worse"
    if found.low > -allowed:
        return "passed", None
    if rule.strict:
        return "refused", "not_shown"
    return ("passed", None) if found.se <= MOST_SE * allowed else ("unjudged", "imprecise")
