"""Every metric against scikit-learn, SciPy or the definition, on rows with ties, weights, few classes and few rows."""

from __future__ import annotations

import itertools
import math

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from pip_dagster.errors import DeclarationError
from pip_dagster.statistics.metrics.measure import Measured, measure, measure_arrays
from pip_dagster.statistics.metrics.spec import HIGHER_IS_BETTER, MetricSpec, default_metric, metric_base

EXACT = {"rel": 1e-9, "abs": 1e-9}
CLASSES = ("a", "b", "c")
SPECS = {
    "binary": MetricSpec("binary", decisions=("flag",), weight="w"),
    "multiclass": MetricSpec("multiclass", scores=("s0", "s1", "s2"), classes=CLASSES, weight="w"),
    "regression": MetricSpec("regression", weight="w", training_mean=1.5),
    "quantile": MetricSpec("regression", scores=("s0", "s1"), quantiles=(0.1, 0.9), weight="w"),
    "count": MetricSpec("count", weight="w"),
    "tweedie": MetricSpec("count", weight="w", power=1.3),
}
fast = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
cases = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([1, 2, 9]))


@pytest.fixture(scope="module")
def con():
    with duckdb.connect(config={"threads": 1}) as opened:
        yield opened


def draw(kind: str, seed: int, n: int, decimals: int) -> dict[str, np.ndarray]:
    """Rows of a kind; few decimals give ties. Some weights are 0."""
    rng = np.random.default_rng(seed)
    w = np.round(rng.gamma(2, 1, n), 1) if rng.random() < 0.5 else np.ones(n)
    if kind == "binary":
        p = np.clip(np.round(rng.random(n), decimals), 1e-6, 1 - 1e-6)
        return {"score": p, "pip_outcome": (rng.random(n) < p * rng.random()) * 1, "flag": p > 0.4, "w": w}
    if kind == "multiclass":
        s = np.round(rng.dirichlet(np.ones(3), n), decimals) + 0.01
        s /= s.sum(axis=1, keepdims=True)
        y = rng.integers(0, rng.integers(1, 4), n)
        return {"s0": s[:, 0], "s1": s[:, 1], "s2": s[:, 2], "pip_outcome": y, "w": w}
    y = np.round(rng.gamma(1, 3, n), decimals) * (rng.random(n) < 0.7)
    s = np.round(rng.gamma(2, 2, n), decimals) + 0.01
    return {"score": s, "s0": s, "s1": s + 1, "pip_outcome": y, "w": w}


def values(found: Measured) -> dict[str, float | None]:
    return {name: each.value for name, each in found.metrics.items()}


def gini(y, s, w):
    """Twice the area between the diagonal and the outcomes cumulated by descending score, by trapezoids."""
    area = below = 0.0
    for level in sorted(set(s), reverse=True):
        at = s == level
        area += w[at].sum() * (below + (w * y)[at].sum() / 2)
        below += (w * y)[at].sum()
    return 2 * area / (w.sum() * (w * y).sum()) - 1


class TestEqualsTheReference:
    @fast
    @given(cases)
    def test_binary(self, case):
        of = draw("binary", *case)
        y, p, w = of["pip_outcome"], of["score"], of["w"]
        found = measure_arrays(SPECS["binary"], of)
        got = values(found)
        if not w.sum():
            assert not any(got.values()) and {each.reason for each in found.metrics.values()} == {"all weights are 0"}
            return
        assert got["logloss"] == pytest.approx(sk.log_loss(y, p, sample_weight=w, labels=[0, 1]), **EXACT)
        assert got["brier"] == pytest.approx(np.average((p - y) ** 2, weights=w), **EXACT)
        assert got["base_rate"] == pytest.approx(np.average(y, weights=w), **EXACT)
        assert got["bias"] == pytest.approx(np.average(p - y, weights=w), **EXACT)
        counts = [w[y == i].sum() for i in (0, 1)]
        if min(counts) > 0:
            assert got["auc"] == pytest.approx(sk.roc_auc_score(y, p, sample_weight=w), **EXACT)
        else:
            assert (got["auc"], found.metrics["auc"].reason) == (None, "rows of one class only")
        if counts[1] > 0:
            expected = sk.average_precision_score(y, p, sample_weight=w)
            assert got["average_precision"] == pytest.approx(expected, **EXACT)
            recall = sk.recall_score(y, of["flag"], sample_weight=w)
            assert got["recall.flag"] == pytest.approx(recall, **EXACT)
        else:
            assert found.metrics["average_precision"][:3] == (None, len(y), "no positive outcome")
        if w[of["flag"]].sum() > 0:
            assert got["precision.flag"] == pytest.approx(
                sk.precision_score(y, of["flag"], sample_weight=w, zero_division=0), **EXACT
            )
        expected = sk.accuracy_score(y, of["flag"], sample_weight=w)
        assert got["accuracy.flag"] == pytest.approx(expected, **EXACT)
        assert got["flag_rate.flag"] == pytest.approx(np.average(of["flag"], weights=w), **EXACT)

    @fast
    @given(cases)
    def test_calibration_error_over_bins_of_equal_counts(self, case):
        of = draw("binary", *case)
        y, p = of["pip_outcome"], of["score"]
        found = measure_arrays(MetricSpec("binary"), of)
        middle = np.array([(p < each).sum() + (p == each).sum() / 2 for each in p])
        tenth = np.minimum(np.floor(10 * middle / len(p)), 9)
        groups = [tenth == i for i in np.unique(tenth)]
        error = sum(at.mean() * abs(p[at].mean() - y[at].mean()) for at in groups)
        chance = sum(at.mean() * math.sqrt(2 * p[at].mean() * (1 - p[at].mean()) / math.pi / at.sum()) for at in groups)
        assert values(found)["ece"] == pytest.approx(error, **EXACT)
        assert values(found)["ece_chance"] == pytest.approx(chance, **EXACT)
        bins = [each for each in found.reliability if each.rows]
        assert [each.rows for each in bins] == [at.sum() for at in groups]
        assert [each.outcome for each in bins] == pytest.approx([y[at].mean() for at in groups], **EXACT)

    @fast
    @given(cases)
    def test_multiclass(self, case):
        of = draw("multiclass", *case)
        y, w = of["pip_outcome"], of["w"]
        s = np.column_stack([of["s0"], of["s1"], of["s2"]])
        found = measure_arrays(SPECS["multiclass"], of)
        got = values(found)
        if not w.sum():
            return
        predicted = s.argmax(axis=1)
        assert got["multi_logloss"] == pytest.approx(sk.log_loss(y, s, sample_weight=w, labels=[0, 1, 2]), **EXACT)
        assert got["accuracy"] == pytest.approx(sk.accuracy_score(y, predicted, sample_weight=w), **EXACT)
        there = [i for i in range(3) if w[y == i].sum() > 0]
        expected = sk.f1_score(y, predicted, labels=there, average="macro", sample_weight=w, zero_division=0)
        assert got["macro_f1"] == pytest.approx(expected, **EXACT)
        cells = sk.confusion_matrix(y, predicted, labels=[0, 1, 2], sample_weight=w)
        assert found.sums.confusion() == pytest.approx(cells, **EXACT)
        aucs = []
        for i, name in enumerate(CLASSES):
            if i in there and len(there) > 1:
                aucs.append(sk.roc_auc_score(y == i, s[:, i], sample_weight=w))
                assert got[f"auc.{name}"] == pytest.approx(aucs[-1], **EXACT)
            else:
                assert got[f"auc.{name}"] is None
        assert got["ovr_auc"] == (pytest.approx(np.mean(aucs), **EXACT) if aucs else None)

    @pytest.mark.slice
    @fast
    @given(cases)
    def test_numbers_and_counts(self, case):
        for kind in ("regression", "count", "tweedie", "quantile"):
            of = draw(kind, *case)
            y, s, w = of["pip_outcome"], of["score"], of["w"]
            spec, found = SPECS[kind], measure_arrays(SPECS[kind], of)
            got = values(found)
            if not w.sum():
                continue
            if kind == "quantile":
                for q, each in ((0.1, of["s0"]), (0.9, of["s1"])):
                    expected = sk.mean_pinball_loss(y, each, alpha=q, sample_weight=w)
                    assert got[f"pinball.{q}"] == pytest.approx(expected, **EXACT)
                    assert got[f"coverage.{q}"] == pytest.approx(np.average(y <= each, weights=w), **EXACT)
                continue
            assert got["rmse"] == pytest.approx(sk.root_mean_squared_error(y, s, sample_weight=w), **EXACT)
            assert got["mae"] == pytest.approx(sk.mean_absolute_error(y, s, sample_weight=w), **EXACT)
            assert got["bias"] == pytest.approx(np.average(s - y, weights=w), **EXACT)
            if kind == "regression":
                r2 = 1 - (w * (y - s) ** 2).sum() / (w * (y - 1.5) ** 2).sum() if len(y) >= 30 else None
                assert got["r2"] == (r2 if r2 is None else pytest.approx(r2, **EXACT))
                continue
            expected = sk.mean_tweedie_deviance(y, s, sample_weight=w, power=spec.power)
            assert got[spec.deviance] == pytest.approx(expected, **EXACT)
            if len(set(y[w > 0])) > 1:
                assert got["gini"] == pytest.approx(gini(y, s, w) / gini(y, y, w), **EXACT)
            else:
                assert got["gini"] is None

    @fast
    @given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.sampled_from([1, 3, 10]))
    def test_ranking(self, seed, width, at):
        """NDCG is scikit-learn's; MAP the mean over every order of tied rows."""
        rng = np.random.default_rng(seed)
        q = np.sort(rng.integers(0, 3, 3 * width))
        s, y = np.round(rng.random(len(q)), 1), rng.integers(0, 4, len(q)) * (rng.random(len(q)) < 0.5)
        rows = rng.permutation(len(q))
        spec = MetricSpec("ranking", query="q", at=at)
        got = values(measure_arrays(spec, {"score": s[rows], "pip_outcome": y[rows], "q": q[rows]}))
        judged = [i for i in np.unique(q) if y[q == i].any()]
        assert (got["queries"], got["queries_without_relevant"]) == (len(set(q)), len(set(q)) - len(judged))
        if not judged:
            assert (got["ndcg"], got["map"]) == (None, None)
            return
        ndcgs = [
            sk.ndcg_score([2.0 ** y[q == i] - 1], [s[q == i]], k=at) if (q == i).sum() > 1 else 1.0 for i in judged
        ]
        assert got["ndcg"] == pytest.approx(np.mean(ndcgs), **EXACT)
        small = [i for i in judged if (q == i).sum() <= 6]
        if len(small) == len(judged):
            assert got["map"] == pytest.approx(np.mean([mean_precision(y[q == i], s[q == i], at) for i in judged]))

    @fast
    @given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.booleans())
    def test_survival(self, seed, n, risk):
        rng = np.random.default_rng(seed)
        s, t, c = np.round(rng.random(n), 1), np.round(rng.gamma(2, 1, n), 1), rng.random(n) < 0.4
        right = pairs = 0.0
        for i, j in itertools.permutations(range(n), 2):
            if not c[i] and (t[i] < t[j] or (t[i] == t[j] and c[j])):
                pairs += 1
                right += 0.5 if s[i] == s[j] else float((s[i] > s[j]) == risk)
        spec = MetricSpec("survival", censored="c", risk=risk)
        found = measure_arrays(spec, {"score": s, "pip_outcome": t, "c": c}).metrics["concordance"]
        assert found.value == (pytest.approx(right / pairs, **EXACT) if pairs else None)
        assert bool(found.reason) != bool(pairs)


def mean_precision(y: np.ndarray, s: np.ndarray, at: int) -> float:
    """Average precision at `at`, the mean over every order that the scores allow."""
    found = []
    for order in itertools.permutations(range(len(y))):
        if all(s[a] >= s[b] for a, b in itertools.pairwise(order)):
            good = (y[list(order)] > 0)[:at]
            found.append((good * np.cumsum(good) / np.arange(1, len(good) + 1)).sum() / min((y > 0).sum(), at))
    return float(np.mean(found))


class TestGroups:
    @pytest.mark.parametrize("kind", SPECS)
    def test_each_group_is_measured_as_if_it_were_alone(self, con, kind):
        rng, spec = np.random.default_rng(5), SPECS[kind]
        of = draw(kind, 3, 300, 2)
        # Names that differ from internal ones in case only, an empty group, NULL and one row alone.
        of |= {"Day": rng.integers(0, 4, 300), "S": rng.choice(["x", "y", ""], 300)}
        of["S"] = np.where(np.arange(300) == 7, "alone", of["S"])
        table = pa.table(of)
        none = pa.array([None if each == "" else each for each in of["S"]])
        table = table.set_column(table.column_names.index("S"), "S", none)
        con.register("grouped", table)
        found = measure(con, "grouped", spec, by=("Day", "S"), sets=(("Day",), ("Day", "S"), ()))
        assert found[-1].group == () and len(found) == len({each.group for each in found})
        for each in found:
            where = " AND ".join(
                f'"{name}" IS NOT DISTINCT FROM {"NULL" if value is None else repr(value)}'
                for name, value in each.group
            )
            con.register("one", con.execute(f"FROM grouped WHERE {where or 'true'}").to_arrow_table())
            (alone,) = measure(con, "one", spec)
            assert {name: each[:3] for name, each in each.metrics.items()} == {
                name: (pytest.approx(each.value, **EXACT) if each.value is not None else None, each.rows, each.reason)
                for name, each in alone.metrics.items()
            }
            assert each.sums.rows == alone.sums.rows
            assert each.sums.metrics().keys() == alone.metrics.keys()
        assert {dict(each.group).get("S") for each in found if len(each.group) == 2} == {"x", "y", None, "alone"}

    @pytest.mark.parametrize("kind", SPECS)
    def test_no_rows_give_no_figures_and_say_so(self, con, kind):
        spec = SPECS[kind]
        con.register("empty", pa.table(draw(kind, 1, 5, 2)).slice(0, 0))
        assert measure(con, "empty", spec, by=("w",)) == []
        (found,) = measure(con, "empty", spec)
        assert {each[:3] for each in found.metrics.values()} == {(None, 0, "no labelled rows")}
        assert found.sums.rows == 0 and {each.value for each in found.sums.metrics().values()} == {None}

    @pytest.mark.parametrize(
        "spec", [MetricSpec("ranking", query="q"), MetricSpec("survival")], ids=lambda spec: spec.kind
    )
    def test_no_rows_of_rankings_and_times(self, con, spec):
        columns = {name: pa.array([], pa.float64()) for name in ("score", "pip_outcome", "q", "g")}
        con.register("empty", pa.table(columns))
        assert measure(con, "empty", spec, by=("g",)) == []
        assert measure(con, "empty", spec)[0].metrics[default_metric(spec)].value is None

    @pytest.mark.parametrize(
        "spec", [MetricSpec("ranking", query="q"), MetricSpec("survival")], ids=lambda spec: spec.kind
    )
    def test_segments_of_rankings_and_times_are_as_their_rows_alone(self, con, spec):
        rng = np.random.default_rng(5)
        columns = {"score": rng.random(60), "pip_outcome": rng.integers(1, 5, 60) * 1.0, "q": np.arange(60) % 7 * 1.0}
        columns |= {"part": np.arange(60) % 2, "segment": np.arange(60) % 3}
        con.register("rows", pa.table(columns))
        found = measure(con, "rows", spec, by=("part", "segment"), sets=[("part",), ("part", "segment")])
        assert len(found) == 2 + 6
        for each in found:
            own = np.all([columns[name] == value for name, value in each.group], axis=0)
            alone = measure_arrays(spec, {name: values[own] for name, values in columns.items()})
            assert each.metrics == alone.metrics

    def test_rows_without_outcome_or_score_are_left_out(self):
        of = {"score": pa.array([0.1, None, 0.8, 0.4]), "pip_outcome": pa.array([False, True, True, None])}
        assert measure_arrays(MetricSpec("binary"), of).metrics["auc"][:2] == (1.0, 2)

    def test_few_positives_have_an_unstable_average_precision(self):
        of = draw("binary", 3, 50, 9)
        found = measure_arrays(MetricSpec("binary"), of).metrics
        assert (
            found["average_precision"].value and "fewer than 20 positive outcomes" in found["average_precision"].reason
        )
        assert found["bias"].low < found["bias"].value < found["bias"].high

    def test_a_stable_draw_of_many_times(self, con):
        con.execute(
            "CREATE OR REPLACE TABLE times AS SELECT range AS id, hash(range) / 1.8e19 AS score, "
            "  hash(range + 1e6) / 1.8e19 + score / 4 AS pip_outcome, range % 3 = 0 AS c FROM range(12000)"
        )
        spec = MetricSpec("survival", censored="c", key=("id",))
        (one,) = measure(con, "times", spec)
        (other,) = measure(con, "(FROM times ORDER BY score)", spec)
        assert one.metrics == other.metrics and one.sums.totals["drawn"] == 5_000 and one.sums.rows == 12_000


@pytest.mark.parametrize(
    ("spec", "wrong", "message"),
    [
        (MetricSpec("binary"), {"score": 1.5}, "1 row with a score in score that cannot be measured; .*probabilities"),
        (MetricSpec("binary", scale="margin"), {"score": math.inf}, "finite"),
        (MetricSpec("binary"), {"score": math.nan}, "probabilities"),
        (MetricSpec("binary"), {"pip_outcome": 2.0}, "an outcome that cannot be measured; .* must be 0 or 1"),
        (MetricSpec("binary", weight="w"), {"w": -1.0}, "weight in w .* 0 or more"),
        (MetricSpec("binary", weight="w"), {"w": None}, "weight in w .* 0 or more"),
        (MetricSpec("count"), {"score": -0.5}, "0 or more"),
        (MetricSpec("count"), {"pip_outcome": -1.0}, "0 or more"),
        (MetricSpec("regression"), {"pip_outcome": math.nan}, "finite numbers"),
        (MetricSpec("ranking", query="q"), {"pip_outcome": 32.0}, "from 0 to 31"),
        (MetricSpec("ranking", query="q"), {"q": None}, "query"),
        (MetricSpec("multiclass", scores=("score", "s1"), classes=("a", "b")), {"s1": 0.9}, "add up to 1"),
        (MetricSpec("multiclass", scores=("score", "s1"), classes=("a", "b")), {"pip_outcome": 2.0}, "codes 0 to 1"),
    ],
)
def test_values_that_would_give_a_wrong_figure_are_refused(spec, wrong, message):
    good = {"score": [0.5, 0.5], "s1": [0.5, 0.5], "pip_outcome": [0.0, 1.0], "w": [1.0, 1.0], "q": [1.0, 1.0]}
    measure_arrays(spec, {name: pa.array(column, pa.float64()) for name, column in good.items()})
    bad = {name: pa.array([column[0], wrong.get(name, column[1])], pa.float64()) for name, column in good.items()}
    with pytest.raises(DeclarationError, match=message):
        measure_arrays(spec, bad)


def test_sums_beyond_the_largest_number_have_no_figure():
    found = measure_arrays(MetricSpec("regression"), {"score": [1e200, 1.0], "pip_outcome": [0.0, 1.0]}).metrics
    assert found["rmse"][:3] == (None, 2, "the sums are beyond the largest number") and found["mae"].value == 5e199


def test_scores_on_other_scales(con):
    of = draw("binary", 8, 60, 2)
    p = of["score"]
    probability = values(measure_arrays(MetricSpec("binary"), of))
    margin = values(measure_arrays(MetricSpec("binary", scale="margin"), of | {"score": np.log(p / (1 - p))}))
    assert margin == pytest.approx(probability, rel=1e-6)
    order = values(measure_arrays(MetricSpec("binary", scale="score"), of | {"score": p * 1000 - 500}))
    assert order == {name: pytest.approx(probability[name]) for name in ("auc", "average_precision", "base_rate")}


def test_names_and_what_is_better():
    assert [default_metric(spec) for spec in SPECS.values()] == [
        *("auc", "multi_logloss", "rmse", "pinball.0.1", "poisson_deviance", "tweedie_deviance")
    ]
    assert metric_base("precision.flag.of.day") in HIGHER_IS_BETTER and "logloss" not in HIGHER_IS_BETTER
    for wrong in ({"kind": "ranking"}, {"kind": "survival", "weight": "w"}, {"kind": "multiclass"}, {"power": 2.0}):
        with pytest.raises(ValueError):
            MetricSpec(**{"kind": "count", **wrong})
