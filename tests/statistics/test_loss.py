"""A loss is found where it is one; without a change, alarms are as rare as stated."""

import numpy as np
import pytest

from pip_dagster.statistics.distribution import adjusted
from pip_dagster.statistics.likeness import likeness
from pip_dagster.statistics.loss import chance_level, loss_against, loss_against_held_out
from pip_dagster.statistics.metrics.measure import measure
from pip_dagster.statistics.metrics.spec import MetricSpec, MetricValue

ROWS, SEGMENTS, WEEK, MONTH = 1_000, 10, 7, 28
LEVEL = 0.01  # the default of monitoring.performance.false_alarms


def world(rng, days, rows=ROWS, icc=0.01, worse_from=None, worse=0.5):
    """Sums by day, and by day and segment, of a binary model: outcomes with a day effect; the score loses signal."""
    import duckdb
    import pyarrow as pa

    day = np.repeat(np.arange(days), rows)
    signal = rng.normal(size=days * rows)
    kept = np.where(day >= worse_from, worse, 1.0) if worse_from is not None else 1.0
    logit = -1.4 + 1.3 * kept * signal + np.sqrt(icc / (1 - icc)) * 1.8 * rng.normal(size=days)[day]
    y = (rng.random(len(day)) < 1 / (1 + np.exp(-logit))).astype(np.float64)
    score = 1 / (1 + np.exp(1.4 - 1.3 * signal))
    segment = rng.integers(0, SEGMENTS, len(day))
    with duckdb.connect(config={"threads": 2}) as con:
        con.register("rows", pa.table({"day": day, "seg": segment, "score": score, "pip_outcome": y}))
        found = measure(con, "rows", MetricSpec("binary"), ["day", "seg"], [["day"], ["day", "seg"]])
    whole = [each.sums for each in found if len(each.group) == 1]
    by = {of.group: of.sums for of in found if len(of.group) == 2}
    return whole, [[by.get((("day", d), ("seg", s))) for d in range(days)] for s in range(SEGMENTS)]


def alarms(whole, segments, at, max_loss=0.05):
    """Which subjects are in alarm on the day `at`, as `monitoring.performance` judges them."""
    window, before = slice(at - WEEK + 1, at + 1), slice(at - WEEK - MONTH + 1, at - WEEK + 1)
    of = loss_against("auc", whole[window], whole[before], max_loss)
    found = ["all"] if of.exceeds and of.p <= LEVEL / 4 else []
    there = [[[each for each in one[part] if each] for part in (window, before)] for one in segments]
    each = [loss_against("auc", *sides, max_loss) for sides in there]
    judged = [one for one in each if one.p is not None]
    by_rank = adjusted([one.p for one in judged]) if judged else []
    return found + ["segment" for one, p in zip(judged, by_rank, strict=True) if one.exceeds and p <= LEVEL / 2]


def rate(seed, days, **options):
    whole, segments = world(np.random.default_rng(seed), days + MONTH + WEEK, **options)
    return float(np.mean([bool(alarms(whole, segments, at)) for at in range(MONTH + WEEK - 1, days + MONTH + WEEK)]))


def test_a_loss_is_found_within_a_week_and_equal_days_are_no_alarm():
    whole, segments = world(np.random.default_rng(1), 60, worse_from=50, worse=0.4)
    assert not any(alarms(whole, segments, at) for at in range(MONTH + WEEK, 50, 4))
    assert "all" in alarms(whole, segments, 56)
    same = [whole[0]] * 40
    found = loss_against("auc", same[:7], same[7:35], 0.05)
    assert found.loss == 0 and not found.exceeds, "identical days"


def test_an_alarm_needs_both_a_loss_beyond_what_is_allowed_and_more_than_chance():
    whole, _ = world(np.random.default_rng(2), 36)
    found = loss_against("auc", whole[-7:], whole[:28], 0.05)
    assert 0 < found.p < 1 and found.low < found.value < found.high and not found.exceeds
    assert found.allowed == pytest.approx(0.05 * (found.reference - 0.5))
    assert found.limit == pytest.approx(found.reference - found.allowed)
    worse = loss_against("logloss", whole[-7:], whole[:28], 0.05)
    assert worse.limit > worse.reference, "less is better"


def test_held_out_rows_count_as_the_partitions_that_they_make():
    whole, _ = world(np.random.default_rng(3), 28)
    many = loss_against_held_out("auc", whole, {"auc": 0.85}, 1_000_000, 0.05)
    few = loss_against_held_out("auc", whole, {"auc": 0.85}, 300, 0.05)
    assert many.exceeds and many.p < 1e-6 < few.p
    assert loss_against_held_out("auc", whole, {"brier": 0.1}, 500, 0.05).p is None


@pytest.mark.parametrize("count", [0, 1, 6])
def test_few_partitions_are_not_judged(count):
    whole, _ = world(np.random.default_rng(4), 30, rows=100)
    found = loss_against("auc", whole[:count], whole[-20:], 0.05)
    assert found.p is None and found.reason


def test_a_figure_that_rows_cannot_give_is_not_judged():
    whole, segments = world(np.random.default_rng(4), 36, rows=50)
    assert loss_against("recall.x", whole[:7], whole[7:], 0.05).p is None
    one = [each for each in segments[0] if each]
    few = loss_against("auc", one[:7], one[7:], 0.05)  # some 7 positives
    assert few.p is None and few.reason


def test_chance_levels():
    of = {"base_rate": MetricValue(0.2, 100)}
    assert chance_level("auc", {}) == 0.5 and chance_level("rmse", of) is None
    assert chance_level("brier", of) == pytest.approx(0.16) and chance_level("average_precision", of) == 0.2


def test_labels_at_random_are_like_the_rest_and_those_of_one_kind_are_not():
    rng = np.random.default_rng(5)
    flagged = 0
    for _ in range(400):
        rows = rng.multinomial(rng.integers(60, 3_000), np.ones(20) / 20)
        drawn = rng.multivariate_hypergeometric(rows, rows.sum() // 2)
        flagged += likeness(drawn, rows).unlike
    assert flagged <= 8, "2% at most"
    rows = np.full(20, 50)
    assert likeness(np.where(np.arange(20) < 10, 50, 5), rows).unlike
    assert not likeness(rows, rows).unlike and not likeness(np.zeros(20), rows).unlike


@pytest.mark.soak
@pytest.mark.parametrize("icc", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("rows", [100, 1_000])
def test_false_alarms_are_as_rare_as_stated(rows, icc):
    found = np.mean([rate(seed, 200, rows=rows, icc=icc) for seed in range(3)])
    print(f"{rows} rows, {icc:.0%} between days: {found:.2%} of days in alarm")
    assert found <= LEVEL
