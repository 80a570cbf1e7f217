"""A plan over many partitions: exactly what changed is due, and a look costs what it may."""

import importlib.util
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from pip_dagster.flow.plan import make_plan


@pytest.fixture(scope="module")
def bench():
    """`benchmarks/plan_cost.py`: five sources with lookbacks of 0, 7, 14, 21 and 28 days."""
    spec = importlib.util.spec_from_file_location(
        "plan_cost", Path(__file__).parents[2] / "benchmarks" / "plan_cost.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("source", [0, 4])
def test_a_change_of_one_day_in_a_hundred_makes_those_due_that_look_back_to_it_and_no_other(bench, tmp_path, source):
    days = 365
    pipeline = bench.build(tmp_path / "project", days, 40 * days)
    bench.record_all_as_built(pipeline)
    assert make_plan(pipeline).current == days
    first = bench.START.date()
    changed = [first + timedelta(days=i) for i in range(50, days, 100)]
    with duckdb.connect(str(tmp_path / "project" / "sources.duckdb")) as con:
        listed = ", ".join(f"DATE '{day}'" for day in changed)
        con.execute(f"UPDATE raw.s{source} SET c1 = c1 + 1 WHERE day IN ({listed})")
    found = make_plan(pipeline)
    expected = {str(day + timedelta(days=i)) for day in changed for i in range(7 * source + 1)}
    expected = {key for key in expected if key < str(first + timedelta(days=days))}
    assert {each.partition.key for each in found.stale} == expected and not found.on_hold
    assert {reason.kind for each in found.stale for reason in each.reasons} == {"source_changed"}
    by_key = {each.partition.key: each.reasons[0].text for each in found.stale}
    assert by_key[str(changed[0])] == f"source changed: s{source} {changed[0]} (same number of rows)"
    assert found.current == days - len(expected)


@pytest.mark.soak
def test_a_look_over_ten_years_costs_two_seconds_and_grows_no_faster_than_the_data(bench, tmp_path):
    spent = {}
    for part in (2, 1):
        pipeline = bench.build(tmp_path / str(part), 3650 // part, 1_000_000 // part)
        bench.record_all_as_built(pipeline)
        spent[part], due = min(bench.cost(pipeline) for _ in range(2))
        assert due == 0
    # The bound is of a core of its own; where others share its caches the same takes more of its seconds.
    assert spent[1] <= 1.25 * bench.BOUND
    assert spent[1] <= 2.5 * spent[2]
