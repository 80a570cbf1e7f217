"""False alarms and power of the drift rules, on counts whose truth is known."""

import time
from dataclasses import astuple, is_dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from scipy.special import expit, logit, ndtr, ndtri

from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.declaration.spec import Partitions
from pip_dagster.monitoring.drift import STATES, at_once, drift_of, judge_all
from pip_dagster.monitoring.series import Column, Series, _phases

BINS, TRAINED, FEATURES = 20, 20_000, 40
EDGES = ndtri(np.arange(1, BINS) / BINS)
RULES = Monitoring()


def days_of(rng, partitions, likeness):
    """Standard normal days, of which each resembles the one before with this correlation."""
    found, noise = np.zeros(partitions + 60), rng.normal(size=partitions + 60)
    for t in range(1, len(found)):
        found[t] = likeness * found[t - 1] + np.sqrt(1 - likeness**2) * noise[t]
    return found[60:]


def counts(rng, partitions, rows, icc, shift=0.0, since=10**9, likeness=0.0, weekend=0.0):
    """Normal values, with the share `icc` of their variance between partitions; moved by `shift` from `since` on.

    `weekend`: by how much the values of two days a week are higher.
    """
    at = np.arange(partitions)
    mean = np.sqrt(icc) * days_of(rng, partitions, likeness) + np.where(at >= since, shift, 0) + weekend * (at % 7 >= 5)
    below = ndtr((EDGES[None] - mean[:, None]) / np.sqrt(1 - icc))
    shares = np.diff(np.concatenate([np.zeros((partitions, 1)), below, np.ones((partitions, 1))], axis=1), axis=1)
    return rng.multinomial(rows, shares)


def with_missing(rng, found, icc, share):
    """The same with about this share of missing values, which differs between days as `icc` says."""
    rows = found.sum(axis=1)
    shares = expit(logit(share) + np.sqrt(4 * icc) * rng.normal(size=len(found)))
    kept = rng.binomial(found, 1 - shares[:, None])
    return np.concatenate([kept, (rows - kept.sum(axis=1))[:, None], np.zeros((len(found), 1), np.int64)], axis=1)


def series(columns, missing=0.0):
    stacked = np.stack([np.pad(each, ((0, 0), (0, BINS + 2 - each.shape[1]))) for each in columns])
    one = int(TRAINED // BINS * (1 - missing))
    references = [(*[one] * BINS, TRAINED - BINS * one if each[:, BINS:].any() else 0, 0) for each in stacked]
    names = (*map(str, range(BINS)), "missing", "never seen")
    listed = tuple(Column("feature", f"f{i}", names, r, None, 0.025) for i, r in enumerate(references))
    keys, at = tuple(map(str, range(stacked.shape[1]))), np.arange(stacked.shape[1])
    means = np.full(stacked.shape[:2], np.nan)
    return Series(keys, listed, stacked, np.array(references), means, phases=at % 7)


def alarms(found, first):
    """(columns, positions) whether each is in alarm, from position `first` on."""
    return judge_all(found, range(first, len(found.partitions)), RULES)[0].judged.state == STATES.index("alarm")


def false_alarms(rng, rows, icc, days, missing=0.0, **how):
    columns = [counts(rng, 36 + days, rows, icc, **how) for _ in range(FEATURES)]
    if missing:
        columns = [with_missing(rng, each, icc, missing) if i % 2 else each for i, each in enumerate(columns)]
    return alarms(series(columns, missing), 36).any(axis=0).mean()


def power(rng, rows, icc, shift, repeats, **how):
    """How often a shift of one column among 40, in standard deviations, is in alarm within 14 partitions."""
    others = [counts(rng, 50, rows, icc, **how) for _ in range(FEATURES - 1)]
    shifted = (counts(rng, 50, rows, icc, shift, since=36, **how) for _ in range(repeats))
    return np.mean([alarms(series([*others, each]), 36)[-1].any() for each in shifted])


@pytest.mark.parametrize("icc", [0, 0.05])
def test_few_false_alarms(icc):
    assert false_alarms(np.random.default_rng(3), 1_000, icc, 40) <= 0.025  # one in 40 days at most


def test_a_shift_is_found():
    rng = np.random.default_rng(4)
    assert power(rng, 1_000, 0.01, 0.5, 12) >= 0.9
    assert power(rng, 1_000, 0.0, 0.3, 4) >= 0.75


@pytest.mark.slice
def test_a_weekly_pattern_hides_no_shift_and_days_that_resemble_each_other_are_no_drift():
    rng = np.random.default_rng(5)
    assert false_alarms(rng, 1_000, 0.05, 60, likeness=0.7) <= 0.02
    assert false_alarms(rng, 1_000, 0.05, 60, weekend=1.0) <= 0.02
    # Weekends that differ by a standard deviation leave 89% to be found, by which days are in training.
    assert np.mean([power(rng, 1_000, 0.01, 0.5, 4, weekend=1.0) for _ in range(6)]) >= 0.7


def test_missing_and_never_seen_values_are_found_where_psi_is_small():
    rng = np.random.default_rng(6)
    columns = [with_missing(rng, counts(rng, 50, 1_000, 0.0), 0.0, 0.2) for _ in range(3)]
    since = np.arange(50) >= 40
    columns[0][since, BINS] += 110  # from 20% to 28%: PSI 0.04
    columns[1][since, BINS + 1] += 30
    found = drift_of(series(columns, missing=0.2), [39, 43], RULES)
    by_name = [{each.name: (each.state, each.rule) for each in partition.columns} for partition in found]
    assert by_name[0] == dict.fromkeys(("f0", "f1", "f2"), ("ok", None))
    assert by_name[1] == {"f0": ("alarm", "missing"), "f1": ("alarm", "unseen"), "f2": ("ok", None)}
    assert max(each.windows[0].excess for each in found[1].columns if each.name == "f0") < 0.1


def test_an_empty_and_a_constant_column_change_nothing_else():
    rng = np.random.default_rng(7)
    columns = [counts(rng, 60, 1_000, 0.05) for _ in range(4)]
    constant, empty = np.zeros_like(columns[0]), np.zeros((60, BINS + 2), np.int64)
    constant[:, 3] = 1_000
    empty[:, BINS] = 1_000
    alone = {each.name: each for each in drift_of(series(columns), [59], RULES)[0].columns}
    among = {each.name: each for each in drift_of(series([*columns, constant, empty]), [59], RULES)[0].columns}
    assert all(among[name].windows == alone[name].windows for name in alone)
    assert {among[name].state for name in ("f4", "f5")} == {"drifted"}  # training had neither
    assert not [name for name in alone if among[name].state != alone[name].state]


def test_partitions_without_rows_of_a_column_are_judged_without_a_warning(recwarn):
    columns = [counts(np.random.default_rng(10), 60, 1_000, 0.05) for _ in range(2)]
    columns[1][:30] = 0
    drift_of(series(columns), range(60), RULES)
    assert not recwarn.list


def flat(value):
    """All values of nested dataclasses, in order."""
    if is_dataclass(value):
        value = astuple(value)
    return [each for part in value for each in flat(part)] if isinstance(value, tuple | list) else [value]


def test_identical_partitions_give_no_alarm_and_many_positions_are_judged_as_each_alone():
    same = series([np.tile(counts(np.random.default_rng(8), 1, 1_000, 0.0), (60, 1)) for _ in range(3)])
    assert not alarms(same, 0).any()
    rng = np.random.default_rng(9)
    found = series([counts(rng, 60, 1_000, 0.05, 1.0, since=50) for _ in range(3)])
    together = drift_of(found, range(60), RULES)
    for at in (0, 1, 6, 16, 35, 51, 59):
        alone, among = (flat(each.columns) for each in (drift_of(found, [at], RULES)[0], together[at]))
        assert len(alone) == len(among)
        # Sums of longer arrays are added in another order on some processors.
        assert all(
            a == (pytest.approx(b, rel=1e-9) if isinstance(b, float) else b) for a, b in zip(alone, among, strict=True)
        )


def test_a_wide_model_is_judged_in_parts_of_equal_memory():
    assert [*map(len, at_once(range(400), 40))] == [366, 34]
    assert max(map(len, at_once(range(400), 2_000))) == 36 and [*at_once([5, 6], 10**6)] == [[5], [6]]
    found = series([counts(np.random.default_rng(9), 60, 1_000, 0.05, 1.0, since=50) for _ in range(3)])
    parts = [each.states for part in at_once(range(60), 20_000) for each in judge_all(found, part, RULES)]
    assert parts == [each.states for each in judge_all(found, range(60), RULES)]


def test_a_same_season_that_was_alike_is_no_alarm():
    rng, at = np.random.default_rng(10), np.arange(100)
    column = counts(rng, 100, 1_000, 0.0, 1.0, since=92)
    column[40:60] = counts(rng, 20, 1_000, 0.0, 1.0, since=0)
    found = series([column])
    assert alarms(replace(found, season=np.full(100, -1)), 93).all()
    assert not alarms(replace(found, season=np.where(at >= 52, at - 52, -1)), 93).any()


@pytest.mark.soak
@pytest.mark.parametrize(
    "how", [{}, {"missing": 0.05}, {"likeness": 0.7}, {"weekend": 1.0}], ids=["plain", "missing", "alike", "weekly"]
)
@pytest.mark.parametrize("icc", [0, 0.01, 0.05])
@pytest.mark.parametrize("rows", [100, 1_000, 100_000])
def test_false_alarms_on_at_most_one_day_in_a_hundred(rows, icc, how):
    rng = np.random.default_rng(int(rows + 1_000 * icc))
    found = np.mean([false_alarms(rng, rows, icc, 365, **how) for _ in range(3)])
    print(f"{rows:,} rows, ICC {icc}, {how}: false alarms on {found:.2%} of the days, {FEATURES} features")
    assert found <= 0.015  # 1% and what a thousand dependent days leave to chance


@pytest.mark.soak
def test_a_year_takes_one_second():
    rng = np.random.default_rng(11)
    found = series([counts(rng, 365, 1_000, 0.05) for _ in range(FEATURES)])
    judge_all(found, range(365), RULES)
    began = time.process_time()
    judge_all(found, range(365), RULES)
    took = time.process_time() - began
    print(f"drift of {FEATURES} columns over 365 partitions: {took:.2f} CPU s")
    assert took < 1.5  # 0.7 where nothing else runs


@pytest.mark.soak
def test_power_table():
    rng = np.random.default_rng(9)
    for rows in (100, 1_000, 100_000):
        for icc in (0, 0.01, 0.05):
            figures = {shift: power(rng, rows, icc, shift, 15) for shift in (0.3, 0.5, 1.0)}
            print(f"{rows:,} rows, ICC {icc}: " + ", ".join(f"{s}: {p:.2f}" for s, p in figures.items()))
            assert figures[1.0] >= 0.85


@pytest.mark.slice
def test_a_day_whose_hours_differ_is_no_drift_of_five_minute_partitions():
    """Values rise and fall by a standard deviation within a day; the history of 28 partitions has no hour twice."""
    declared = Partitions(every="5 minutes", start=datetime(2024, 1, 1))
    starts = [datetime(2024, 1, 1) + i * timedelta(minutes=5) for i in range(324)]
    rng, columns = np.random.default_rng(11), []
    for phase in rng.uniform(0, 2 * np.pi, FEATURES):
        mean = np.sin(2 * np.pi * np.arange(324) / 288 + phase) + 0.1 * rng.normal(size=324)
        below = ndtr(EDGES[None] - mean[:, None])
        edges = np.concatenate([np.zeros((324, 1)), below, np.ones((324, 1))], axis=1)
        columns.append(rng.multinomial(1_000, np.diff(edges, axis=1)))
    found = replace(series(columns), phases=_phases(starts, declared, RULES.history))
    assert alarms(found, 36).any(axis=0).mean() <= 0.02
    assert _phases(starts, declared.model_copy(update={"every": "15 minutes"}), 288) is not None, "it has three days"
