"""Two of three windows at once: how often that is by chance, by simulation."""

import numpy as np
import pytest
from scipy import stats

from pip_dagster.statistics.novelty import two_of_three

DRAWS = 400_000


def rate(likeness, at):
    """How often p is at most `at` where nothing differs, of three windows that resemble each other so much."""
    alike = likeness ** np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
    normal = np.random.default_rng(7).standard_normal((DRAWS, 3)) @ np.linalg.cholesky(alike).T
    return (two_of_three(stats.norm.sf(normal).T, np.full(DRAWS, likeness)) <= at).mean()


@pytest.mark.parametrize("at", [0.01, 0.05])
def test_windows_that_are_independent_are_wrong_as_often_as_stated(at):
    assert rate(0.0, at) == pytest.approx(at, abs=4 * (at / DRAWS) ** 0.5)


@pytest.mark.parametrize("likeness", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("at", [0.001, 0.01])
def test_windows_that_resemble_each_other_are_not_wrong_more_often(likeness, at):
    assert 0.2 * at < rate(likeness, at) < 1.1 * at


def test_one_window_alone_is_no_alarm():
    assert two_of_three(np.array([1e-12, 0.7, 0.7]), np.array(0.0)) > 0.7
    assert np.isnan(two_of_three(np.array([1e-12, np.nan, np.nan]), np.array(0.0)))
