"""Whether units are parted as declared: a chi-squared test of the counts, on each partition.

A ratio that is off by more than chance says that the assignment, or what brings units into the pipeline, is not what it
is taken for, and that arms must not be compared (Fabijan et al., Diagnosing Sample Ratio Mismatch, KDD 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pip_dagster.declaration.split import BUCKETS

# If the arms are right, one partition in a thousand is reported nevertheless.
LEAST_P = 0.001
# Below it the counts are too few for the chi-squared distribution (Cochran's rule).
_LEAST_EXPECTED = 5.0


@dataclass(frozen=True)
class Counted:
    """What an arm has of a partition."""

    rows: int
    units: int


def chi_squared(observed: Mapping[str, int], buckets: Mapping[str, int]) -> tuple[float, float]:
    """The statistic and p-value of units by arm, each arm's share being its buckets of all."""
    from scipy.special import chdtrc

    total = sum(observed.values())
    expected = {arm: total * share / BUCKETS for arm, share in buckets.items()}
    statistic = sum((observed.get(arm, 0) - of) ** 2 / of for arm, of in expected.items())
    return statistic, float(chdtrc(len(expected) - 1, statistic))


def sample_ratio(counts: Mapping[str, Counted], buckets: Mapping[str, int]) -> tuple[str, bool, dict[str, Any]]:
    """The verdict on a partition: its name, whether it holds, and the figures. Units are tested, not their rows."""
    units = {arm: counts[arm].units if arm in counts else 0 for arm in sorted(buckets)}
    total = sum(units.values())
    shown: dict[str, Any] = {
        arm: (asdict(counts[arm]) if arm in counts else {"rows": 0, "units": 0})
        | {"share": buckets[arm] / BUCKETS, "expected_units": total * buckets[arm] / BUCKETS}
        for arm in units
    }
    if len(units) < 2 or min(total * share / BUCKETS for share in buckets.values()) < _LEAST_EXPECTED:
        return "sample_ratio", True, shown | {"not_tested": "an arm has fewer than 5 units to be expected"}
    statistic, p = chi_squared(units, buckets)
    return "sample_ratio", p >= LEAST_P, shown | {"chi_squared": statistic, "p": p}
