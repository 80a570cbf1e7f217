"""False alarms and power of the drift rules, on counts whose truth is known."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.monitoring.drift import drift_at
from pip_dagster.monitoring.series import Column, Series

BINS, TRAINED, FEATURES = 20, 20_000, 40
EDGES = ndtri(np.arange(1, BINS) / BINS)
RULES = Monitoring()


def counts(rng, partitions, rows, icc, shift=0.0, since=10**9):
    """Normal values, with the share `icc` of their variance between partitions; moved by `shift` from `since` on."""
    mean = np.sqrt(icc) * rng.normal(size=partitions) + np.where(np.arange(partitions) >= since, shift, 0)
    below = ndtr((EDGES[None] - mean[:, None]) / np.sqrt(1 - icc))
    shares = np.diff(np.concatenate([np.zeros((partitions, 1)), below, np.ones((partitions, 1))], axis=1), axis=1)
    return rng.multinomial(rows, shares)


def series(columns):
    stacked = np.stack([np.pad(each, ((0, 0), (0, 2))) for each in columns])
    reference = (*[TRAINED // BINS] * BINS, 0, 0)
    names = tuple(map(str, range(BINS + 2)))
    listed = tuple(Column("feature", f"f{i}", names, reference, None, 0.025) for i in range(len(columns)))
    keys = tuple(map(str, range(stacked.shape[1])))
    return Series(keys, listed, stacked, np.tile(reference, (len(columns), 1)), np.full(stacked.shape[:2], np.nan))


def false_alarms(rng, rows, icc, days):
    found = series([counts(rng, 36 + days, rows, icc) for _ in range(FEATURES)])
    return np.mean([bool(drift_at(found, at, RULES).alarms) for at in range(36, 36 + days)])


def power(rng, rows, icc, shift, repeats):
    """How often a shift of one column among 40, in standard deviations, is in alarm within 14 partitions."""
    others = [counts(rng, 50, rows, icc) for _ in range(FEATURES - 1)]
    hits = 0
    for _ in range(repeats):
        found = series([*others, counts(rng, 50, rows, icc, shift, since=36)])
        alarms = (each.name for at in range(36, 50) for each in drift_at(found, at, RULES).alarms)
        hits += f"f{FEATURES - 1}" in alarms
    return hits / repeats


@pytest.mark.parametrize("icc", [0, 0.05])
def test_few_false_alarms(icc):
    assert false_alarms(np.random.default_rng(3), 1_000, icc, 40) <= 0.025  # one in 40 days at most


def test_a_shift_is_found():
    rng = np.random.default_rng(4)
    assert power(rng, 1_000, 0.01, 0.5, 4) == 1.0
    assert power(rng, 1_000, 0.0, 0.3, 4) >= 0.75


@pytest.mark.soak
@pytest.mark.parametrize("icc", [0, 0.01, 0.05])
@pytest.mark.parametrize("rows", [100, 1_000, 100_000])
def test_false_alarms_on_at_most_one_day_in_a_hundred(rows, icc):
    rng = np.random.default_rng(int(rows + 1_000 * icc))
    found = np.mean([false_alarms(rng, rows, icc, 100) for _ in range(5)])
    print(f"{rows:,} rows, ICC {icc}: false alarms on {found:.2%} of the days, {FEATURES} features")
    assert found <= 0.015  # 1% and what 500 dependent days leave to chance


@pytest.mark.soak
def test_power_table():
    rng = np.random.default_rng(9)
    for rows in (100, 1_000, 100_000):
        for icc in (0, 0.01, 0.05):
            figures = {shift: power(rng, rows, icc, shift, 15) for shift in (0.3, 0.5, 1.0)}
            print(f"{rows:,} rows, ICC {icc}: " + ", ".join(f"{s}: {p:.2f}" for s, p in figures.items()))
            assert figures[1.0] >= 0.85
