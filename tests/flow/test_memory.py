"""A run's memory: limited from the start, and more for feature SQL that cannot do with it."""

import pytest

GREEDY = """
SELECT o.order_id, o.day, o.gift, o.shop, o.quantity, o.amount, length(big.text) AS letters
FROM raw.orders o, (SELECT string_agg(repeat('x', 1000) || i, '') AS text FROM range(200_000) t(i)) big
WHERE o.day >= $start_date AND o.day < $end_date
"""


def test_feature_sql_that_needs_more_memory_than_a_run_starts_with_gets_it(tiny, monkeypatch):
    tiny.declare(GREEDY)
    results = tiny.run("2024-03-01", "2024-03-02")
    assert [result.error for result in results.values()] == [None, None]
    assert tiny.scores() == pytest.approx(tiny.expected("day < '2024-03-03'"))


def test_a_declared_limit_is_kept_to(tiny, monkeypatch):
    monkeypatch.setenv("PIP_DAGSTER_MEMORY_LIMIT", "192MB")
    (result,) = tiny.declare(GREEDY).run("2024-03-01").values()
    assert "Out of Memory" in result.error
