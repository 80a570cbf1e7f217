"""What is usual of a column, against its definition day by day."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pip_dagster.statistics.distribution import stability
from pip_dagster.statistics.usual import usual

SPAN, BINS = 28, 5


@st.composite
def histories(draw):
    """Counts of two columns before one position, with empty days and bins, and a pattern by weekday in some."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shares = rng.dirichlet(np.full(BINS, draw(st.sampled_from([1.0, 30.0]))), (2, 7 if draw(st.booleans()) else 1))
    rows = rng.integers(0, draw(st.sampled_from([3, 400])), (2, SPAN)) * (rng.random((2, SPAN)) > 0.1)
    weekday = np.arange(SPAN) % 7
    return np.stack([rng.multinomial(rows[i], shares[i, weekday % shares.shape[1]]) for i in range(2)]), weekday


def spread_of(days: np.ndarray, group: np.ndarray, means: int) -> float:
    """The spread of a column's days around the others of their group, one day after the other."""
    listed = [i for i in range(SPAN) if days[i].any() and ((group == group[i]) & days.any(axis=1)).sum() > (means > 1)]
    count = max(len(listed), 2)
    fewer = 1 - 1 / max(count / means, 2)
    ends = []
    for form in ("psi", "chi"):
        excess, variance = 0.0, 0.0
        for i in listed:
            of, n = days[group == group[i]].sum(axis=0), days[i].sum()
            psi, noise, df = (float(each) for each in stability(days[i] * 1.0, (of - days[i]) * 1.0))
            if form == "chi":
                mean, noise = of / of.sum(), df / n
                psi = (((days[i] / n - mean) ** 2) / (mean + 0.5 / of.sum())).sum()
            excess += psi - noise
            variance += 2 / max(df, 1) * noise**2
        end = max(excess / count + 1.645 * np.sqrt(variance) / count, 0.0)
        ends.append(end * fewer if form == "psi" else end / fewer)
    return max(ends)


@given(histories())
def test_the_spread_is_that_of_each_day_against_the_others(drawn):
    counts, weekday = drawn
    plain = usual(counts, np.array([SPAN]), SPAN)
    of_week = usual(counts, np.array([SPAN]), SPAN, np.append(weekday, 0))
    assert (plain.total[:, 0] == counts.sum(axis=1)).all() and (
        plain.days[:, 0] == counts.any(axis=2).sum(axis=1)
    ).all()
    for i, days in enumerate(counts):
        assert plain.spread[i, 0] == pytest.approx(spread_of(days, np.zeros(SPAN, int), 1), rel=1e-9, abs=1e-12)
        taken = int(of_week.means_taken[i, 0])
        group = weekday if taken > 1 else np.zeros(SPAN, int)
        assert of_week.spread[i, 0] == pytest.approx(spread_of(days, group, taken), rel=1e-9, abs=1e-12)


def test_a_weekly_pattern_is_found():
    rng = np.random.default_rng(3)
    shares = rng.dirichlet(np.ones(BINS), 7)
    weekday = np.arange(SPAN) % 7
    counts = np.stack([rng.multinomial(500, shares[day]) for day in weekday])[None]
    found = usual(counts, np.array([SPAN]), SPAN, np.append(weekday, 0))
    assert found.means_taken[0, 0] == 7
    assert found.spread[0, 0] < usual(counts, np.array([SPAN]), SPAN).spread[0, 0] / 10
