"""How often the rules of operations fire where nothing has changed, and that they fire where something has."""

import numpy as np
import pytest

from pip_dagster.statistics.outlying import far_above, slowed_down

HISTORY = 28


def alarms(counts, rows):
    """The share of partitions whose count is far above, of those that have a history."""
    pairs = list(zip(counts.tolist(), rows.tolist(), strict=True))
    found = [far_above(*pairs[t], pairs[t - HISTORY : t]) for t in range(HISTORY, len(pairs))]
    judged = [each[1] for each in found if each]
    return sum(judged) / max(1, len(judged))


def series(rows, share, spread, partitions, seed=0):
    """Counts and rows of partitions, whose shares differ by `spread` on the log scale."""
    rng = np.random.default_rng(seed)
    shares = np.minimum(share * np.exp(rng.normal(0, spread, partitions) - spread**2 / 2), 1)
    of = rng.poisson(rows, partitions)
    return rng.binomial(of, shares), of


def speeds(spread, partitions, seed=0):
    return 10 * np.exp(np.random.default_rng(seed).normal(0, spread, partitions))


def slow(seconds):
    pairs = [(1000, float(each)) for each in seconds]
    found = [slowed_down([pairs[t], pairs[t - 1]], pairs[t - 1 - HISTORY : t - 1]) for t in range(30, len(pairs))]
    return sum(raised for _, raised in found) / len(found)


@pytest.mark.parametrize("rows", [20, 100, 1_000, 100_000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_false_alarms_of_shares(rows, share, spread):
    assert alarms(*series(rows, share, spread, 1_000)) <= 0.005


@pytest.mark.soak
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_false_alarms_of_all_three_rules_together(spread):
    of_shares = [
        alarms(*series(rows, share, spread, 10_000)) for rows in (100, 1_000, 100_000) for share in (0.001, 0.05)
    ]
    assert 2 * max(of_shares) + slow(speeds(0.3, 20_000)) <= 0.01


def test_false_alarms_of_throughput():
    assert slow(speeds(0.3, 5_000)) <= 0.002


@pytest.mark.parametrize(
    ("usual", "now", "rows"), [(0.0, 0.03, 1_000), (0.01, 0.1, 1_000), (0.0, 0.2, 100), (0.01, 0.04, 100_000)]
)
def test_a_share_that_rises_is_found(usual, now, rows):
    counts, of = series(rows, usual, 0.2, HISTORY)
    verdict = far_above(round(now * rows), rows, list(zip(counts.tolist(), of.tolist(), strict=True)))
    assert verdict[1] and verdict[0] < now


def test_half_the_speed_is_found_in_the_second_partition():
    history = [(1_000, float(each)) for each in speeds(0.1, HISTORY)]
    assert slowed_down([(1_000, 25.0), (1_000, 25.0)], history)[1]
    assert not slowed_down([(1_000, 25.0), (1_000, 10.0)], history)[1]


def test_few_rows_are_not_a_slow_machine():
    history = [(1_000, 10.0)] * HISTORY
    assert not slowed_down([(10, 9.0), (10, 9.0)], history)[1], "what every partition costs"
    tiny = [(50, 0.01)] * HISTORY
    assert not slowed_down([(50, 0.9), (50, 0.9)], tiny)[1], "less than a second is noise"


@pytest.mark.parametrize("history", [[], [(0, 100)] * 13, [(0, 0)] * 40])
def test_too_little_history_gives_no_verdict(history):
    assert far_above(5, 100, history) is None
    assert far_above(0, 0, [(0, 100)] * 28) is None
    assert slowed_down([(100, 5.0)] * 2, [(rows, 1.0) for _, rows in history][:13]) is None
    assert slowed_down([(100, 5.0), (0, 0.0)], [(100, 1.0)] * 28) is None
