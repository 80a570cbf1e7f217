"""How often estimates hold: without shift, when features shift, and when the outcome follows them in another way.

Partitions of scores and outcomes whose truth is known, estimated with the statements that estimate real ones.
"""

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pip_dagster.statistics.band import LEAST_GRADED, band, record, spreads
from pip_dagster.statistics.expected import CalibratedRows, expected
from pip_dagster.statistics.loss_table import (
    beyond,
    counts_by_bin,
    edges_of,
    expected_losses,
    losses_sql,
    make_table,
    measured_losses,
)
from pip_dagster.statistics.metrics.spec import MetricSpec
from pip_dagster.statistics.score_curve import GRAIN, fit_curve

SOAK = pytest.mark.soak
SPEC = MetricSpec("binary", decisions=("high",))
FITTED = 28


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def calibrated(z):
    return z


def overconfident(z):
    return (z - 0.3) / 1.8


def draw(rng, partitions, rows, truth, *, shift=0.0, day=0.0):
    """Logits of scores and outcomes, (partitions, rows) each. `day`: sd of what a day's outcomes have in common."""
    z = -1.5 + shift + 1.3 * rng.normal(size=(partitions, rows))
    return z, (rng.random((partitions, rows)) < sigmoid(truth(z) + day * rng.normal(size=(partitions, 1)))).astype(
        float
    )


def evaluate(z, p, curve=None, first=0):
    """Partition → metric → what is expected with the probabilities `p`, which may be outcomes."""
    con = duckdb.connect(config={"threads": 1})
    part = np.repeat(np.arange(first, first + len(z)), z.shape[1])
    score = sigmoid(z).ravel()
    table = {"partition_key": part.astype(str), "pip_group": np.zeros(len(part), np.int64), "score": score}
    con.register("given", pa.table(table | {"high": score > 0.3, "pip_l0": z.ravel(), "pip_p0": p.ravel()}))
    rows = CalibratedRows("given", SPEC, (curve.knots,) if curve else ())
    return expected(con, rows, {(0, 0): curve} if curve else {})


def probabilities(curve, z):
    """What the curve makes of logits."""
    c, (low, high) = curve.coefficients, curve.knots
    return sigmoid(c[0] + c[1] * z + c[2] * np.maximum(z - low, 0) + c[3] * np.maximum(z - high, 0))


def fitted(z, y):
    """The curve of labelled partitions, and the spread between them."""
    logits, at = np.unique(np.round(z.ravel() * GRAIN) / GRAIN, return_inverse=True)
    curve = fit_curve(logits, np.bincount(at).astype(float), np.bincount(at, y.ravel()))
    return curve, spreads(evaluate(z, probabilities(curve, z), curve), values(evaluate(z, y)))


def values(found):
    return {key: {metric: each.value for metric, each in of.items()} for key, of in found.items()}


def sides(rng, positives, partitions, rows, truth, *, metrics=None, **options):
    """Metric → -1, 0 or 1 for each of the partitions: where what was measured lies of the band."""
    past = draw(rng, FITTED, round(positives / 0.2 / FITTED), truth, day=options.get("day", 0.0))
    curve, spread = fitted(*past)
    z, y = draw(rng, partitions, rows, truth, **options)
    return judged(curve, spread, z, y)


def judged(curve, spread, z, y, first=0):
    found: dict[str, list[int]] = {}
    truth = values(evaluate(z, y, first=first))
    for key, of in evaluate(z, probabilities(curve, z), curve, first).items():
        for metric, each in of.items():
            if metric in truth[key]:
                around = band(metric, each, spread.get(metric, 0.0), FITTED)
                found.setdefault(metric, []).append(_side(around, truth[key][metric]))
    return {metric: np.array(of) for metric, of in found.items()}


def days(rng, rows, truth, *, count=120, changed_at=10**6, changed=None, mature_after=7, day=0.0):
    """Metric → the sides of days as they are estimated: each week a calibrator of the newest 28 labelled days."""
    drawn = [draw(rng, 1, rows, truth if d < changed_at else changed, day=day) for d in range(count)]
    z, y = (np.concatenate([each[i] for each in drawn]) for i in (0, 1))
    found: dict[str, list[np.ndarray]] = {}
    for at in range(FITTED + mature_after, count, 7):
        past = slice(at - mature_after - FITTED, at - mature_after)
        for metric, of in judged(*fitted(z[past], y[past]), z[at : at + 7], y[at : at + 7], at).items():
            found.setdefault(metric, []).append(of)
    return {metric: np.concatenate(of) for metric, of in found.items()}


COUNTS = MetricSpec("count", outcome="y")
LOSSES = losses_sql(COUNTS)


def count_rows(rng, partitions, rows, *, shift=0.0, factor=1.0):
    mean = np.exp(1 + 0.3 * (rng.normal(size=(partitions, rows)) + shift))
    part = np.repeat(np.arange(partitions), rows).astype(str)
    outcome = rng.poisson(mean * factor).ravel().astype(float)
    return pa.table({"partition_key": part, "score": mean.ravel().astype(np.float32), "y": outcome})


def count_hits(rng, partitions, rows, **options):
    """Metric → whether each estimated partition held, and the share of partitions that the guard refused."""
    con = duckdb.connect(config={"threads": 1})
    con.register("past", count_rows(rng, FITTED, 1_000))
    table = make_table(con, "past", "score", LOSSES, edges_of(con, "past", "score"))
    counted = counts_by_bin(con, "past", "score", table.edges)
    spread = spreads(
        {key: expected_losses(of, table) for key, of in counted.items()}, measured_losses(con, "past", LOSSES)
    )
    con.register("now", count_rows(rng, partitions, rows, **options))
    truth, hits, refused = measured_losses(con, "now", LOSSES), {}, 0
    for key, counts in counts_by_bin(con, "now", "score", table.edges).items():
        if beyond(counts, table):
            refused += 1
            continue
        for metric, each in expected_losses(counts, table).items():
            value = truth[key][metric]
            side = _side(band(metric, each, spread[metric], FITTED), value**0.5 if metric == "rmse" else value)
            hits.setdefault(metric, []).append(side == 0)
    return hits, refused / partitions


def _side(of, truth):
    return int(truth > of.high) - int(truth < of.low)


def half_as_informative(z):
    return z / 2 - 0.6


def coverage(rng, repeats, *arguments, **options):
    """Metric → the share of partitions that held, over calibrators of their own."""
    found: dict[str, list[np.ndarray]] = {}
    for _ in range(repeats):
        for metric, of in sides(rng, *arguments, **options).items():
            found.setdefault(metric, []).append(of == 0)
    return {metric: float(np.concatenate(of).mean()) for metric, of in found.items()}


@pytest.mark.parametrize(("truth", "shift"), [(calibrated, 0.0), (calibrated, 0.8), (overconfident, 0.8)])
def test_estimates_hold(truth, shift):
    found = coverage(np.random.default_rng(1), 4, 1_000, 40, 500, truth, shift=shift)
    assert set(found) == {"auc", "base_rate", "logloss", "brier", "precision.high", "recall.high"}
    assert all(share >= 0.85 for share in found.values()) and 0.91 <= np.mean([*found.values()]) <= 0.99, found


def test_another_relation_of_outcome_and_features_is_found_within_ten_labelled_partitions():
    found = days(np.random.default_rng(2), 1_000, calibrated, count=84, changed_at=63, changed=half_as_informative)
    at = 63 - 35  # the first changed day among those with estimates
    records = {metric: [record([*of[: i + 1]]) for i in range(at + 10)] for metric, of in found.items()}
    assert any(each.withdrawn for each in records["auc"][at:]) and any(each.runs for each in records["auc"][at:])
    assert not any(each.withdrawn or each.runs for of in records.values() for each in of[LEAST_GRADED:at])


def test_losses_hold_and_the_guard_refuses_what_is_beyond_the_labels():
    rng = np.random.default_rng(3)
    hits, refused = count_hits(rng, 60, 500)
    assert refused == 0 and all(np.mean(of) >= 0.88 for of in hits.values()) and set(hits) >= {"rmse", "bias", "mae"}
    assert count_hits(rng, 20, 1_000, shift=1.0)[1] == 1.0
    assert np.mean(count_hits(rng, 40, 1_000, factor=1.3)[0]["bias"]) <= 0.05, "the score does not see it"


@SOAK
@pytest.mark.parametrize("rows", [200, 1_000, 5_000])
@pytest.mark.parametrize("truth", [calibrated, overconfident])
@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_coverage_is_95_percent(rows, truth, shift):
    rng = np.random.default_rng(rows)
    found = coverage(rng, 20, 1_000, 20, rows, truth, shift=shift)
    print(f"{truth.__name__}, shift {shift}, {rows:,} rows: " + ", ".join(f"{m} {v:.1%}" for m, v in found.items()))
    assert all(0.92 <= share <= 0.985 for share in found.values())


@SOAK
@pytest.mark.parametrize("positives", [200, 5_000])
def test_coverage_with_few_and_many_labels(positives):
    found = coverage(np.random.default_rng(positives), 20, positives, 20, 1_000, overconfident)
    print(f"{positives:,} positives: " + ", ".join(f"{metric} {value:.1%}" for metric, value in found.items()))
    assert all(share >= 0.92 for share in found.values())


@SOAK
@pytest.mark.parametrize("rows", [200, 1_000, 5_000])
@pytest.mark.parametrize("day", [0.0, 0.3])
def test_runs_by_chance(rows, day):
    rng, runs, withdrawn, held = np.random.default_rng(int(rows + 10 * day)), [], [], []
    for _ in range(4):
        found = days(rng, rows, overconfident, count=147, day=day)
        records = [[record([*of[: i + 1]]) for of in found.values()] for i in range(len(found["auc"]))]
        runs += [any(each.runs for each in of) for of in records]
        withdrawn += [each.withdrawn for of in records for each in of]
        held.append(np.mean([np.mean(of == 0) for of in found.values()]))
    print(f"{rows:,} rows, day {day}: held {np.mean(held):.1%}")
    print(f"  runs {np.mean(runs):.2%}, withdrawn {np.mean(withdrawn):.2%}")
    assert np.mean(runs) <= 0.02


@SOAK
@pytest.mark.parametrize("rows", [200, 1_000, 5_000])
def test_losses_by_shift(rows):
    rng = np.random.default_rng(rows)
    for shift in (0.0, 0.3, 0.5, 0.8):
        results = [count_hits(rng, 20, rows, shift=shift) for _ in range(20)]
        refused = np.mean([each[1] for each in results])
        held = {m: np.concatenate([each[0].get(m, []) for each in results]) for m in ("rmse", "mae", "bias")}
        hits = ", ".join(f"{metric} {np.mean(of):.1%} of {len(of)}" for metric, of in held.items())
        print(f"{rows:,} rows, shift {shift}: refused {refused:.0%}, held {hits}")
