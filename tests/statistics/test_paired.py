"""Drift of paired scores and changed decisions, against numpy, scipy.stats and permutations."""

from __future__ import annotations

import functools

import duckdb
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pip_dagster.errors import DeclarationError
from pip_dagster.statistics.paired import Drift, decile_table, drift, judge_drift, wilson_low


@functools.cache
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


def table_of(champion: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    con = connection()
    con.execute('CREATE OR REPLACE TABLE r ("the champion" DOUBLE, "b""b" DOUBLE)')
    if len(champion):
        con.register("arrays", {"a": np.asarray(champion, float), "b": np.asarray(candidate, float)})
        con.execute("INSERT INTO r SELECT a, b FROM arrays")
    return decile_table(con, "r", "the champion", 'b"b')


def by_hand(champion: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    ordered = np.sort(champion)
    edges = [ordered[int(np.ceil(len(ordered) * i / 10)) - 1] for i in range(1, 10)]
    table = np.zeros((10, 10), int)
    one = edges[0] == edges[-1]
    for pair in zip(champion, candidate, strict=True):
        i, j = (sum(each > e for e in edges) + (one and each == edges[0]) for each in pair)
        table[i, j] += 1
    return table


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([10, 37, 200]), st.sampled_from([1, 3]))
def test_the_table_counts_pairs_of_deciles(seed: int, rows: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (np.round(rng.normal(size=rows), digits) for _ in range(2))
    assert (table_of(a, b) == by_hand(a, b)).all()


@pytest.mark.parametrize("moved", [-0.3, 0.3])
@pytest.mark.parametrize("others", [0, 9])
def test_scores_that_leave_a_champions_single_score_are_a_drift_in_both_directions(moved: float, others: int) -> None:
    champion = np.full(100, 0.5)
    champion[:others] = 0.1
    found = drift(table_of(champion, champion + moved))
    assert judge_drift(found, 0.25) == "refused"
    assert drift(table_of(champion, champion)).psi == 0


def test_rows_without_both_scores_are_left_out_and_non_finite_ones_refused() -> None:
    with duckdb.connect() as con:
        con.execute(
            "CREATE TABLE r AS SELECT i::DOUBLE AS a, CASE WHEN i < 30 THEN i::DOUBLE END AS b FROM range(100) t(i)"
        )
        assert decile_table(con, "r", "a", "b").sum() == 30
        assert decile_table(con, "(SELECT * FROM r WHERE a < 10)", "a", "b").sum() == 10
        for bad in ("nan", "inf"):
            con.execute(
                f"CREATE OR REPLACE TABLE s AS SELECT a, CASE WHEN a = 3 THEN '{bad}'::DOUBLE ELSE a END AS b FROM r"
            )
            with pytest.raises(DeclarationError, match="1 scores in a or b are NaN or infinite"):
                decile_table(con, "s", "a", "b")


def test_psi_and_its_noise_are_the_formulas() -> None:
    table = np.array([[40, 10, 0], [5, 30, 5], [0, 2, 8]])
    n, m = table.sum(axis=1), table.sum(axis=0)
    p, q = (n + 0.5) / 101.5, (m + 0.5) / 101.5
    found = drift(table)
    assert found.rows == 100
    assert found.psi == pytest.approx(((q - p) * np.log(q / p)).sum())
    moved = [(50 - 40) + (45 - 40), (40 - 30) + (42 - 30), (10 - 8) + (13 - 8)]
    assert found.noise == pytest.approx(sum(k / ((a + b) / 2) for k, a, b in zip(moved, n, m, strict=True)) / 100)
    assert found.excess == found.psi - found.noise


def test_the_noise_is_the_mean_of_psi_when_each_row_swaps_its_scores_or_not() -> None:
    rng = np.random.default_rng(8)
    a = rng.normal(size=400)
    table = table_of(a, a + 0.4 * rng.normal(size=400))
    i, j = np.indices(table.shape)
    cells = [(x, y, k) for x, y, k in zip(i.ravel(), j.ravel(), table.ravel(), strict=True) if k]
    drawn = []
    for _ in range(300):
        swapped = np.zeros_like(table)
        for x, y, k in cells:
            there = rng.binomial(k, 0.5)
            swapped[x, y] += there
            swapped[y, x] += k - there
        drawn.append(drift(swapped).psi)
    assert drift(table).noise == pytest.approx(np.mean(drawn), rel=0.15)


def test_stuart_maxwell_is_mcnemar_for_two_bins_and_the_full_quadratic_form_for_more() -> None:
    two = drift(np.array([[50, 12], [30, 8]]))
    assert (two.chi2, two.df) == (pytest.approx(18**2 / 42), 1)
    assert two.p == pytest.approx(scipy.stats.chi2.sf(18**2 / 42, 1))
    table = np.random.default_rng(1).integers(1, 20, (4, 4))
    d = (table.sum(axis=1) - table.sum(axis=0)).astype(float)
    s = np.diag(table.sum(axis=1) + table.sum(axis=0)) - table - table.T
    found = drift(table)
    assert (found.chi2, found.df) == (pytest.approx(d[:3] @ np.linalg.solve(s[:3, :3], d[:3])), 3)
    assert found.p == pytest.approx(scipy.stats.chi2.sf(found.chi2, 3))
    order = np.random.default_rng(2).permutation(4)
    assert drift(table[np.ix_(order, order)]).chi2 == pytest.approx(found.chi2)
    assert drift(table.T).chi2 == pytest.approx(found.chi2)


def test_degenerate_tables() -> None:
    assert drift(np.zeros((10, 10))) == Drift(0, 0.0, 0.0, 0.0, 0, 1.0)
    assert drift(table_of(np.empty(0), np.empty(0))).rows == 0
    same = drift(np.diag(np.arange(10)))
    assert (same.psi, same.noise, same.chi2, same.p) == (0, 0, 0, 1)
    constant = drift(table_of(np.full(80, 0.5), np.full(80, 0.5)))
    assert (constant.psi, constant.noise, constant.p) == (0, 0, 1)
    moved = drift(table_of(np.full(80, 0.5), np.full(80, 0.6)))
    assert judge_drift(moved, 0.25) == "refused" and moved.p < 1e-9
    apart = np.kron(np.eye(2, dtype=int), np.array([[5, 9], [1, 5]]))  # two groups of bins that no row connects
    assert drift(apart).df == 2


def test_a_shift_is_refused_and_noise_is_not() -> None:
    rng = np.random.default_rng(3)
    refused = {"equal": 0, "shifted": 0, "few": 0}
    for _ in range(40):
        x = rng.normal(size=200)
        a, b = (x + 0.45 * rng.normal(size=200) for _ in range(2))
        refused["equal"] += judge_drift(drift(table_of(a, b)), 0.1) == "refused"
        refused["shifted"] += judge_drift(drift(table_of(a, b + 0.6)), 0.1) == "refused"
        few = drift(table_of(a[:20], b[:20]))
        refused["few"] += few.psi > 0.25
        assert judge_drift(few, 0.1) == "unjudged"
        assert judge_drift(few, 0.1, least_rows=20) == "passed"
    assert refused["equal"] == 0 and refused["shifted"] >= 38
    assert refused["few"] > 13, "what PSI alone would have refused"


def test_tables_of_partitions_add_up() -> None:
    rng = np.random.default_rng(4)
    tables = [table_of(a, a + 0.8) for a in rng.normal(size=(4, 20))]
    assert {judge_drift(drift(table), 0.25) for table in tables} == {"unjudged"}
    assert judge_drift(drift(sum(tables)), 0.25) == "refused"


@pytest.mark.parametrize(("count", "rows"), [(0, 10), (3, 10), (10, 10), (17, 400), (399, 400), (1, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_the_lower_bound_is_wilsons(count: int, rows: int, confidence: float) -> None:
    expected = scipy.stats.binomtest(count, rows).proportion_ci(confidence, method="wilson").low
    assert wilson_low(count, rows, confidence) == pytest.approx(expected, abs=1e-12)


def test_a_share_of_nothing_is_zero_and_impossible_counts_are_refused() -> None:
    assert wilson_low(0, 0) == 0
    for count, rows in ((-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="is not a share"):
            wilson_low(count, rows)
