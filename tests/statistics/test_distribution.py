"""Figures from counts alone equal those of scipy; nothing depends on empty bins, order or the number of windows."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, false_discovery_control

from pip_dagster.statistics.distribution import adjusted, difference

COUNTS = arrays(np.int64, st.integers(2, 30), elements=st.integers(0, 500))
PAIRS = st.integers(2, 30).flatmap(
    lambda bins: st.tuples(*(arrays(np.int64, bins, elements=st.integers(0, 500)) for _ in range(2)))
)


@given(PAIRS)
def test_distance_is_scipys(pair):
    current, reference = pair
    found = difference(current, reference).distance[0]
    expected = jensenshannon(current, reference, base=2) if current.any() and reference.any() else 0.0
    assert found == pytest.approx(expected, abs=1e-7)  # near 0, scipy's square root enlarges its rounding


@given(PAIRS)
def test_chi_squared_is_scipys_where_no_bin_is_merged(pair):
    current, reference = pair
    both, least = current + reference, min(current.sum(), reference.sum())
    assume(both.all() and (both * least / both.sum() >= 5).all())
    found, expected = difference(current, reference), chi2_contingency([current, reference], correction=False)
    assert found.chi2[0] == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
    assert (found.df[0], found.p[0]) == (expected.dof, pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12))


@given(COUNTS)
def test_the_same_distribution_does_not_differ(counts):
    found = difference(counts, counts)
    assert found.psi[0] == found.distance[0] == found.change[0] == 0.0 and found.excess[0] <= 0 and found.p[0] == 1


@given(PAIRS)
def test_empty_bins_and_symmetry_change_nothing(pair):
    current, reference = pair
    one, other = difference(current, reference), difference(reference, current)
    wider = difference(np.append(current, [0, 0]), np.append(reference, [0, 0]))
    for name in ("psi", "noise", "distance", "chi2", "p"):
        assert getattr(one, name)[0] == pytest.approx(getattr(other, name)[0], rel=1e-9, abs=1e-9)
        assert getattr(one, name)[0] == pytest.approx(getattr(wider, name)[0], rel=1e-9, abs=1e-9)
    assert all(np.isfinite(getattr(one, name)).all() for name in ("psi", "noise", "distance", "chi2", "p", "change"))


def test_windows_are_independent_of_each_other():
    rng = np.random.default_rng(1)
    windows, reference = rng.integers(0, 90, (40, 12)), rng.integers(0, 900, 12)
    together = difference(windows, reference)
    for i, window in enumerate(windows):
        alone = difference(window, reference)
        assert (together.psi[i], together.chi2[i], together.p[i]) == (alone.psi[0], alone.chi2[0], alone.p[0])


def test_the_largest_change_is_named():
    found = difference([[10, 10, 80]], [50, 25, 25])
    assert (found.largest[0], found.change[0]) == (2, pytest.approx(0.55))


def test_psi_without_drift_has_the_predicted_mean():
    rng = np.random.default_rng(2)
    shares = rng.dirichlet(np.full(21, 4.0))
    for rows in (200, 1_000, 10_000):
        draws = difference(rng.multinomial(rows, shares, 2_000), rng.multinomial(20_000, shares, 2_000))
        assert draws.psi.mean() == pytest.approx(draws.noise.mean(), rel=0.1)
        assert (draws.p < 0.01).mean() == pytest.approx(0.01, abs=0.008)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_adjusted_p_values_are_scipys(p):
    assert adjusted(np.array(p)) == pytest.approx(false_discovery_control(p), abs=1e-12)
