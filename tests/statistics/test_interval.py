"""Intervals of a gain, by unit and day, against sums over pairs of rows and scipy.stats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pip_dagster.errors import DeclarationError
from pip_dagster.statistics.arms import ArmRows, arm_difference, estimate
from pip_dagster.statistics.interval import PairedRows, gain, spread

METRICS = ("auc", "logloss", "rmse", "poisson_deviance", "multi_logloss", "accuracy", "macro_f1", "ovr_auc")


def pairs_variance(psi: np.ndarray, same: np.ndarray, clusters: int) -> float:
    """The sum of psi_i psi_j over the pairs of rows of one cluster, one by one."""
    total = sum(psi[i] * psi[j] for i in range(len(psi)) for j in range(len(psi)) if same[i, j])
    return total / len(psi) ** 2 * clusters / (clusters - 1)


def test_the_variance_is_that_by_unit_and_the_excess_of_days_over_cells() -> None:
    rng = np.random.default_rng(2)
    unit, day = rng.integers(0, 15, 60), np.repeat(np.arange(4), 15)
    psi = rng.normal(size=60) + rng.normal(size=4)[day]
    psi -= psi.mean()
    same_unit, same_day = unit[:, None] == unit, day[:, None] == day
    cells = len(set(zip(unit, day, strict=True)))
    by_unit = pairs_variance(psi, same_unit, len(set(unit)))
    by_day = pairs_variance(psi, same_day, 4)
    excess = by_day - pairs_variance(psi, same_unit & same_day, cells)
    assert excess > 0
    found = spread(psi, unit, day)
    assert (found.rows, found.units, found.days) == (60, len(set(unit)), 4)
    assert found.se**2 == pytest.approx(by_unit + excess)
    df = (by_unit + excess) ** 2 / (by_unit**2 / (found.units - 1) + excess * by_day / 3)
    assert found.df == pytest.approx(df)
    assert found.half_width(0.95) == pytest.approx(scipy.stats.t.ppf(0.975, df) * found.se)
    assert found.row_se == pytest.approx(psi.std(ddof=1) / 60**0.5)
    assert found.effective_rows == pytest.approx(60 * (found.row_se / found.se) ** 2)


def test_a_mean_of_independent_rows_has_the_interval_of_the_t_test() -> None:
    y = np.random.default_rng(4).normal(size=50)
    rows = ArmRows(y, y, np.arange(50), np.zeros(50, int))
    found = estimate("mean", rows, 0.9)
    expected = scipy.stats.ttest_1samp(y, 0).confidence_interval(0.9)
    assert found and (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_difference_of_two_arms_is_about_welchs() -> None:
    rng = np.random.default_rng(5)
    one, two = rng.normal(size=400), 0.3 + 2 * rng.normal(size=150)
    arms = [ArmRows(y, y, np.arange(len(y)), np.zeros(len(y), int)) for y in (one, two)]
    found = arm_difference("mean", *arms)
    expected = scipy.stats.ttest_ind(two, one, equal_var=False).confidence_interval(0.95)
    assert found and found.value == pytest.approx(two.mean() - one.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=0.02)
    back = arm_difference("mean", *reversed(arms))
    assert back and (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_a_day_that_both_arms_share_cancels_in_their_difference() -> None:
    rng = np.random.default_rng(6)
    luck, day = rng.normal(size=10), np.repeat(np.arange(10), 100)
    arms = [ArmRows(y, y, np.arange(1000), day) for y in (luck[day] + rng.normal(size=1000) for _ in range(2))]
    alone, difference = estimate("mean", arms[0]), arm_difference("mean", *arms)
    assert alone and difference and alone.spread.se > 3 * difference.spread.se


def test_an_arm_of_one_unit_has_no_bounds() -> None:
    y = np.arange(8.0)
    one, many = ArmRows(y, y, np.zeros(8, int), np.zeros(8, int)), ArmRows(y, y, np.arange(8), np.zeros(8, int))
    for found in (estimate("mean", one), arm_difference("mean", many, one), arm_difference("mean", one, many)):
        assert found and (found.low, found.high) == (-np.inf, np.inf)
    empty = ArmRows(y[:0], y[:0], y[:0].astype(int), y[:0].astype(int))
    assert estimate("mean", empty) is None and arm_difference("mean", many, empty) is None


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(METRICS), st.integers(0, 10_000))
def test_rows_units_and_days_may_come_in_any_order_and_swapped_models_have_the_opposite_gain(
    simulation, metric: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = simulation.draw(metric, simulation.World(3, 15, unit=bool(seed % 2), day=True), rng)
    found = gain(metric, rows)
    shuffled = rows.take(rng.permutation(len(rows)))
    names = rng.permutation(1000)
    renamed = replace(rows, unit=names[rows.unit], day=names[rows.day])
    swapped = replace(rows, champion=rows.candidate, candidate=rows.champion)
    if found is None:
        assert gain(metric, shuffled) is gain(metric, renamed) is gain(metric, swapped) is None
        return
    for other in (gain(metric, shuffled), gain(metric, renamed)):
        assert other and (other.gain, other.low, other.high) == pytest.approx((found.gain, found.low, found.high))
    back = gain(metric, swapped)
    assert back and (back.gain, back.low, back.high) == pytest.approx((-found.gain, -found.high, -found.low))
    assert (back.champion, back.candidate) == (found.candidate, found.champion)


def test_every_row_twice_is_no_more_information_when_units_say_so(simulation) -> None:
    rows = simulation.draw("rmse", simulation.World(1, 100), np.random.default_rng(1))
    twice = rows.take(np.tile(np.arange(100), 2))
    once, known = gain("rmse", rows), gain("rmse", twice)
    ignored = gain("rmse", replace(twice, unit=np.arange(200)))
    assert once and known and ignored
    assert known.se == pytest.approx(once.se)
    assert known.spread.effective_rows == pytest.approx(100, rel=0.02)
    assert ignored.se == pytest.approx(once.se / 2**0.5, rel=0.01)


def test_a_smaller_loss_is_a_gain_and_a_larger_auc_is() -> None:
    y = np.array([0.0, 1.0] * 20)
    rows = PairedRows(y, np.full(40, 0.5), np.where(y == 1, 0.8, 0.2), np.arange(40), np.zeros(40, int))
    for metric in ("auc", "logloss", "rmse", "poisson_deviance"):
        found = gain(metric, rows)
        assert found and found.gain > 0, metric


def test_degenerate_rows(simulation) -> None:
    world = simulation.World(2, 50)
    rows = simulation.draw("auc", world, np.random.default_rng(1))
    assert gain("auc", rows.take(np.arange(0))) is None
    assert gain("auc", rows.take(rows.y == 1)) is None
    one_unit = gain("auc", replace(rows, unit=np.zeros(100, int)))
    assert one_unit and one_unit.low == -np.inf and one_unit.high == np.inf and one_unit.se == np.inf
    one_day = gain("auc", replace(rows, day=np.zeros(100, int)))
    assert one_day and one_day.spread.days == 1 and 0 < one_day.se < 1
    same = gain("auc", replace(rows, candidate=rows.champion))
    assert same and same.gain == same.se == 0 and same.low == same.high == 0
    assert same.spread.effective_rows == 100
    constant = gain("auc", replace(rows, champion=np.full(100, 0.2)))
    assert constant and constant.champion == 0.5
    with pytest.raises(DeclarationError, match="NaN"):
        gain("auc", replace(rows, candidate=np.full(100, np.nan)))
    three_positive = gain("auc", replace(rows, y=(np.arange(100) < 3).astype(float)))
    assert three_positive and three_positive.spread.df == pytest.approx(2)


def test_an_empty_spread_has_no_bounds() -> None:
    none = np.empty(0, int)
    assert spread(none, none, none).se == np.inf
