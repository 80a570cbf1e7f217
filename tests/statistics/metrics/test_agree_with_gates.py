"""Gates, canaries and arms use influence functions, monitoring SQL: the same rows have the same figure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pip_dagster.declaration.gates import MetricName
from pip_dagster.errors import DeclarationError
from pip_dagster.statistics.arms import ArmRows, estimate
from pip_dagster.statistics.influence import HIGHER_IS_BETTER, influence
from pip_dagster.statistics.metrics import spec as specs
from pip_dagster.statistics.metrics.measure import measure_arrays
from pip_dagster.statistics.metrics.spec import MetricSpec

CLASSES = ("a", "b", "c")
MULTICLASS = MetricSpec("multiclass", scores=tuple("012"), classes=CLASSES)
# The gates' metric: what measures it, and its name there.
SHARED = {
    "auc": (MetricSpec("binary"), "auc"),
    "logloss": (MetricSpec("binary"), "logloss"),
    "rmse": (MetricSpec("regression"), "rmse"),
    "poisson_deviance": (MetricSpec("count"), "poisson_deviance"),
    "multi_logloss": (MULTICLASS, "multi_logloss"),
    "accuracy": (MULTICLASS, "accuracy"),
    "macro_f1": (MULTICLASS, "macro_f1"),
    "ovr_auc": (MULTICLASS, "ovr_auc"),
    "mean": (MetricSpec("regression"), "mean_outcome"),
}


def draw(metric, seed, n):
    """Ties, probabilities of 0 and 1, rows of one class and counts of 0 among them."""
    rng = np.random.default_rng(seed)
    spec, _ = SHARED[metric]
    if spec.kind == "multiclass":
        s = rng.integers(0, 4, (n, 3)) + (rng.random() < 0.5) * 0.5
        s = np.where(s.sum(axis=1, keepdims=True) > 0, s, 1.0)
        return rng.integers(0, rng.integers(1, 4), n), s / s.sum(axis=1, keepdims=True)
    if spec.kind == "binary":
        return rng.integers(0, rng.integers(1, 3), n) * 1.0, rng.integers(0, 6, n) / 5
    return rng.poisson(1.5, n) * 1.0, rng.integers(0, 5, n) / 2


def measured(metric, y, scores):
    spec, name = SHARED[metric]
    columns = {each: scores[:, i] for i, each in enumerate(spec.scores)} if scores.ndim == 2 else {"score": scores}
    return measure_arrays(spec, columns | {"pip_outcome": y}).metrics[name].value


def test_every_metric_of_the_gates_is_compared():
    assert set(MetricName.__args__) | {"mean"} == SHARED.keys()
    assert {name for _, name in SHARED.values()} & specs.HIGHER_IS_BETTER == HIGHER_IS_BETTER


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("metric", SHARED)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 50))
def test_the_same_rows_have_the_same_figure(metric, seed, n):
    y, scores = draw(metric, seed, n)
    found = influence(metric, y, scores)
    ours = measured(metric, y, scores)
    assert ours == (None if found is None else pytest.approx(found.value, rel=1e-9, abs=1e-9))
    codes = np.arange(n)
    of_arm = estimate(metric, ArmRows(y, scores, codes, codes % 3))
    assert ours == (None if of_arm is None else pytest.approx(of_arm.value, rel=1e-9, abs=1e-9))


@pytest.mark.parametrize(
    ("metric", "y", "scores"),
    [
        ("auc", [0.0, 2.0], [0.1, 0.2]),
        ("logloss", [0.0, 1.0], [0.1, 1.2]),
        ("rmse", [0.0, np.nan], [0.1, 1.2]),
        ("rmse", [0.0, 1.0], [0.1, np.inf]),
        ("poisson_deviance", [0.0, -1.0], [0.1, 1.2]),
        ("poisson_deviance", [0.0, 1.0], [0.1, -1.2]),
        ("multi_logloss", [0.0, 1.0], [[0.2, 0.2, 0.2], [0.2, 0.2, 0.6]]),
        ("accuracy", [0.0, 3.0], [[0.2, 0.2, 0.6], [0.2, 0.2, 0.6]]),
        ("macro_f1", [0.0, 0.5], [[0.2, 0.2, 0.6], [0.2, 0.2, 0.6]]),
    ],
)
def test_what_one_refuses_the_other_refuses(metric, y, scores):
    for refusing in (influence, measured):
        with pytest.raises(DeclarationError):
            refusing(metric, np.array(y), np.array(scores))
