"""The decision rules: over all rows, in segments, and how many labels they need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from pip_dagster.statistics.interval import Gain, PairedRows, Spread, gain
from pip_dagster.statistics.judge import MOST_SE, Rule, _state, detectable, judge, labels_needed, margin
from pip_dagster.statistics.planning import labels_needed_before
from pip_dagster.statistics.segments import judge_segments

METRICS = ("auc", "logloss", "rmse", "poisson_deviance", "multi_logloss", "accuracy", "macro_f1", "ovr_auc")
INFINITE = float("inf")


def found(value: float, se: float, units: int = 100_000, df: float = 99_999.0) -> Gain:
    half = scipy.stats.t.ppf(0.975, df) * se
    spread = Spread(1_000, units, 7, se, df, se)
    return Gain("auc", 0.75, 0.75 + value, value, value - half, value + half, spread)


def test_rule_d_depends_on_interval_and_margin() -> None:
    """Margin 1: refused beyond it and beyond chance; unjudged by the standard error alone."""
    rule = Rule()
    assert _state(found(-1.01, 0.5), 1, 50, rule) == ("refused", "worse")
    assert _state(found(-0.99, 0.1), 1, 50, rule) == ("passed", None)  # certainly worse, by less than is allowed
    assert _state(found(-1.01, 0.6), 1, 50, rule) == ("passed", None)  # beyond the margin, within chance
    assert _state(found(-2.0, MOST_SE), 1, 50, rule) == ("passed", None)
    for value in (-2.0, 0.0, 1.5):
        assert _state(found(value, MOST_SE + 0.01), 1, 50, rule) == ("unjudged", "imprecise")
    assert _state(found(2.0, MOST_SE + 0.01), 1, 50, rule) == ("passed", None)  # a loss of the margin is excluded
    assert _state(found(-9.0, MOST_SE + 0.01), 1, 50, rule) == ("refused", "worse")


def test_the_strict_rule_passes_only_what_is_shown_to_be_no_worse() -> None:
    rule = Rule(strict=True)
    assert _state(found(0.0, 0.5), 1, 50, rule) == ("passed", None)
    assert _state(found(0.0, 0.52), 1, 50, rule) == ("refused", "not_shown")
    assert _state(found(-0.5, 0.2), 1, 50, rule) == ("passed", None)
    assert _state(found(-1.5, 0.2), 1, 50, rule) == ("refused", "worse")


@pytest.mark.parametrize("rule", [Rule(), Rule(strict=True)], ids=["default", "strict"])
def test_few_outcomes_few_units_and_no_scale_are_never_judged(rule: Rule) -> None:
    worse = found(-9.0, 0.1)
    assert _state(worse, 1, 19, rule) == ("unjudged", "few_outcomes")
    assert _state(found(-9.0, 0.1, units=9), 1, 50, rule) == ("unjudged", "few_units")
    assert _state(worse, 0.0, 50, rule) == ("unjudged", "no_scale")
    assert _state(worse, 1, 20, rule)[0] == "refused"


def test_the_margin_is_a_share_of_what_the_champion_gains_over_the_base_rate() -> None:
    y = np.array([0.0] * 700 + [1.0] * 300)
    entropy = -(0.7 * np.log(0.7) + 0.3 * np.log(0.3))
    assert margin("auc", y, 0.75, 0.05).value == pytest.approx(0.0125)
    assert margin("logloss", y, 0.4, 0.05).value == pytest.approx(0.05 * (entropy - 0.4))
    assert margin("multi_logloss", y, 0.4, 0.1).value == pytest.approx(0.1 * (entropy - 0.4))
    assert margin("rmse", y, 0.2, 0.05).value == pytest.approx(0.05 * (0.21**0.5 - 0.2))
    assert margin("accuracy", y, 0.8, 0.05).value == pytest.approx(0.005)
    assert margin("macro_f1", y, 0.9, 0.05).value == pytest.approx(0.05 * (0.9 - 1.4 / 1.7 / 2))
    poisson = 2 * 0.3 * np.log(1 / 0.3)
    assert margin("poisson_deviance", y, 0.5, 0.05).value == pytest.approx(0.05 * (poisson - 0.5))


def test_a_champion_that_hardly_beats_the_base_rate_has_the_floor() -> None:
    y = np.array([0.0] * 700 + [1.0] * 300)
    for champion in (0.4, 0.5, 0.59):
        floored = margin("auc", y, champion, 0.05)
        assert (floored.value, floored.floored) == (pytest.approx(0.005), True)
    assert not margin("auc", y, 0.61, 0.05).floored
    assert margin("rmse", y, 0.458, 0.05).value == pytest.approx(0.005 * 0.21**0.5)
    assert margin("accuracy", y, 0.69, 0.05).value == pytest.approx(0.0015)
    assert margin("rmse", np.full(50, 0.1), 0.3, 0.05).value == 0


def rows_of(simulation, metric: str = "auc", seed: int = 1, **world) -> PairedRows:
    return simulation.draw(metric, simulation.World(**world), np.random.default_rng(seed))


@pytest.mark.parametrize("metric", METRICS)
def test_an_equal_model_passes_and_a_much_worse_one_is_refused(simulation, metric: str) -> None:
    equal = judge(metric, rows_of(simulation, metric, correlation=0.95, days=5, rows=2_000))
    assert (equal.state, equal.reason) == ("passed", None)
    assert equal.gain and equal.margin and equal.detectable and equal.needed
    assert equal.needed <= 10_000 and equal.detectable > equal.margin.value
    worse = judge(metric, rows_of(simulation, metric, days=5, rows=2_000, worse=5.0))
    assert (worse.state, worse.reason) == ("refused", "worse")


def test_the_same_model_passes_and_needs_only_enough_outcomes(simulation) -> None:
    rows = rows_of(simulation)
    same = judge("auc", replace(rows, candidate=rows.champion))
    assert same.state == "passed" and same.gain and same.margin
    assert same.detectable == same.margin.value
    assert same.needed == int(np.ceil(len(rows) * 20 / same.outcomes))


def test_degenerate_rows_are_unjudged_with_the_reason(simulation) -> None:
    rows = rows_of(simulation, days=10, rows=100)
    none = judge("auc", rows.take(np.arange(0)))
    assert (none.state, none.reason, none.rows, none.gain, none.needed) == ("unjudged", "few_outcomes", 0, None, None)
    assert judge("auc", rows.take(rows.y == 1)).reason == "few_outcomes"
    assert judge("logloss", rows.take(rows.y == 1)).reason == "few_outcomes"
    three = np.concatenate([np.flatnonzero(rows.y == 1)[:3], np.flatnonzero(rows.y == 0)])
    assert judge("auc", rows.take(three)).reason == judge("logloss", rows.take(three)).reason == "few_outcomes"
    assert judge("auc", replace(rows, unit=rows.unit % 9)).reason == "few_units"
    assert judge("auc", replace(rows, unit=rows.unit * 0)).reason == "few_units"
    twelve = judge("auc", replace(rows, unit=rows.unit % 12))
    assert twelve.reason in (None, "imprecise") and twelve.gain and twelve.gain.spread.df < 12
    flat = replace(rows, y=np.full(len(rows), 0.1))
    assert judge("rmse", flat).reason == "no_scale"
    one_day = judge("auc", replace(rows, day=rows.day * 0))
    assert one_day.gain and one_day.gain.spread.days == 1
    constant = judge("auc", replace(rows, champion=np.full(len(rows), 0.3)))
    assert constant.margin and constant.margin.floored and constant.state != "refused"


def test_an_exact_loss_is_refused_without_any_variance() -> None:
    y = np.repeat([0, 1], 20)
    right, wrong = np.eye(2)[y], np.eye(2)[1 - y]
    rows = PairedRows(y, right, wrong, np.arange(40), np.arange(40) % 4)
    assert judge("accuracy", rows).state == "refused"
    segments = {"all": (["x"], np.zeros(40, int))}
    assert judge_segments("accuracy", rows, segments, 0.01).state == "refused"


def test_what_is_needed_makes_the_rule_judge(simulation) -> None:
    few = judge("auc", rows_of(simulation, rows=40, correlation=0.9))
    assert few.needed
    enough = judge("auc", rows_of(simulation, rows=few.needed // 7 * 2, correlation=0.9))
    assert enough.state == "passed"
    rows = rows_of(simulation, rows=400, correlation=0.8)
    strict, default = judge("auc", rows, Rule(strict=True)), judge("auc", rows)
    assert default.needed and default.needed > 150, "more than the least number of outcomes asks for"
    assert strict.needed == pytest.approx(16 * default.needed, rel=0.05)


def test_power_is_what_the_rule_has() -> None:
    """At the smallest loss that is found with 80%, the rule refuses 80% of normal estimates."""
    rng = np.random.default_rng(1)
    for se in (0.2, 0.5, 1.0):
        least = detectable(found(0.0, se), 1.0, 0.975)
        assert least
        estimates = -least + se * rng.normal(size=100_000)
        assert ((estimates + 1.96 * se < 0) & (estimates < -1)).mean() == pytest.approx(0.8, abs=0.01)
    assert detectable(found(0.0, INFINITE), 1.0, 0.975) is None
    assert labels_needed(found(0.0, INFINITE), 1.0, 50, strict=False) is None
    assert labels_needed(found(0.0, MOST_SE), 1.0, 500, strict=False) == 1_000


def segmented(simulation, sizes: list[int], seed: int = 1, **world) -> tuple[PairedRows, dict]:
    rows = rows_of(simulation, seed=seed, days=5, rows=sum(sizes) // 5, **world)
    codes = np.repeat(np.arange(len(sizes)), sizes)[np.random.default_rng(seed).permutation(len(rows))]
    return rows, {"carrier": ([f"c{i}" for i in range(len(sizes))], codes)}


def spoiled(rows: PairedRows, at: np.ndarray) -> PairedRows:
    return replace(rows, candidate=np.where(at, np.random.default_rng(9).random(len(rows)), rows.candidate))


def test_one_bad_segment_is_found_and_named(simulation) -> None:
    rows, segments = segmented(simulation, [500] * 10)
    clean = judge_segments("auc", rows, segments, 0.0125)
    assert clean.state == "passed" and len(clean.judged) == 10 and not clean.refused
    found_ = judge_segments("auc", spoiled(rows, segments["carrier"][1] == 3), segments, 0.0125)
    assert found_.state == "refused"
    assert [(each.column, each.value, each.reason) for each in found_.refused] == [("carrier", "c3", "worse")]
    assert found_.segments[0].value == "c3" and found_.allowed == 0.025
    assert all(each.detectable and each.detectable > 0.025 for each in found_.segments)


def test_holm_rejects_step_by_step_over_all_columns(simulation) -> None:
    rows, segments = segmented(simulation, [1_000] * 4)
    codes = segments["carrier"][1]
    segments["again"] = (["even", "odd"], codes % 2)
    bad = spoiled(rows, codes <= 1)
    found_ = judge_segments("auc", bad, segments, 1e-9)
    p = sorted(each.p for each in found_.judged)
    holm = [all(p[j] <= 0.025 / (6 - j) for j in range(i + 1)) for i in range(6)]
    assert 2 <= sum(holm) < 6
    assert sorted(each.p for each in found_.refused) == p[: sum(holm)]
    for each in found_.judged:
        again = gain("auc", bad.take(segments[each.column][1] == segments[each.column][0].index(each.value)))
        assert again and each.p == pytest.approx(scipy.stats.t.cdf(again.gain / again.se, again.spread.df))


def test_a_significant_loss_within_two_margins_is_not_refused(simulation) -> None:
    rows, segments = segmented(simulation, [2_000] * 2)
    bad = spoiled(rows, segments["carrier"][1] == 0)
    loss = -judge_segments("auc", bad, segments, 1e-9).refused[0].gain.gain
    assert judge_segments("auc", bad, segments, loss / 2 + 1e-6).state == "passed"
    assert judge_segments("auc", bad, segments, loss / 2 - 1e-6).state == "refused"


def test_small_segments_are_listed_with_the_loss_that_would_have_been_found(simulation) -> None:
    rows, segments = segmented(simulation, [1_000, 1_000, 30, 5])
    found_ = judge_segments("auc", spoiled(rows, segments["carrier"][1] == 2), segments, 0.0125)
    assert found_.state == "passed" and {each.value for each in found_.judged} == {"c0", "c1"}
    small = {each.value: each for each in found_.segments if each.state == "unjudged"}
    assert set(small) == {"c2", "c3"} and {each.reason for each in small.values()} == {"few_outcomes"}
    assert small["c2"].detectable and small["c2"].detectable > max(each.detectable or 0 for each in found_.judged)
    few_units = replace(rows, unit=np.where(segments["carrier"][1] == 0, rows.unit % 9, rows.unit))
    reasons = {each.value: each.reason for each in judge_segments("auc", few_units, segments, 0.0125).segments}
    assert reasons["c0"] == "few_units"


def test_rows_of_no_segment_empty_segments_and_no_segment_at_all(simulation) -> None:
    rows, segments = segmented(simulation, [500] * 2)
    values, codes = segments["carrier"]
    partly = {"carrier": ([*values, "nobody"], np.where(codes == 1, -1, codes))}
    found_ = judge_segments("auc", rows, partly, 0.0125)
    assert {each.value: each.rows for each in found_.segments} == {"c0": 500, "c1": 0, "nobody": 0}
    assert [each.value for each in found_.judged] == ["c0"]
    assert judge_segments("auc", rows, {}, 0.0125).state == "unjudged"
    no_scale = judge_segments("auc", rows, segments, 0.0)
    assert no_scale.state == "unjudged" and {each.reason for each in no_scale.segments} == {"no_scale"}
    none = rows.take(np.arange(0))
    assert judge_segments("auc", none, {"carrier": (["c0"], codes[:0])}, 0.0125).state == "unjudged"


@pytest.mark.parametrize("metric", METRICS)
def test_the_need_for_labels_is_known_before_they_arrive(simulation, metric: str) -> None:
    """From scores alone, against what the labels of five such sets show."""
    sets = [rows_of(simulation, metric, seed=seed, days=20, rows=250) for seed in range(5)]
    rows = replace(sets[0], y=np.zeros(5_000))
    noise = (2 - 0.83) ** 0.5 if metric == "rmse" else None
    before = labels_needed_before(metric, rows, noise=noise)
    after = [judge(metric, each) for each in sets]
    assert before
    assert before.se == pytest.approx(np.mean([each.gain.se for each in after]), rel=0.2)
    assert before.margin == pytest.approx(np.mean([each.margin.value for each in after]), rel=0.4)
    strict = labels_needed_before(metric, rows, Rule(strict=True), noise=noise)
    assert strict and strict.rows >= before.rows
    assert before == labels_needed_before(metric, rows, noise=noise)


def test_recurring_units_share_luck_in_what_is_drawn(simulation) -> None:
    rows = rows_of(simulation, days=30, rows=50, unit=True)
    alone, half = (labels_needed_before("auc", rows, shared=shared) for shared in (0.0, 0.5))
    assert alone and half and half.se > 1.15 * alone.se
    once = replace(rows, unit=np.arange(len(rows)))
    alone, half = (labels_needed_before("auc", once, shared=shared) for shared in (0.0, 0.5))
    assert alone and half and half.se == pytest.approx(alone.se, rel=0.1)


def test_nothing_is_drawn_from_scores_that_are_neither_probabilities_nor_means(simulation) -> None:
    rows = rows_of(simulation)
    for scores in (rows.champion - 1, rows.champion + 1, np.full(len(rows), np.nan)):
        assert labels_needed_before("auc", replace(rows, champion=scores)) is None
    assert labels_needed_before("poisson_deviance", replace(rows, champion=rows.champion - 1)) is None
    assert labels_needed_before("rmse", rows) is None
    assert labels_needed_before("auc", rows.take(np.arange(0))) is None
    assert labels_needed_before("auc", replace(rows, champion=np.zeros(len(rows)))) is None
