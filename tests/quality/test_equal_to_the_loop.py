"""The law of this package: whatever the way, the verdicts are those of one validation per partition and expectation."""

import importlib.util
import sys
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings

from pip_dagster.quality.evaluate import evaluate
from pip_dagster.quality.native import covers
from pip_dagster.quality.relation import Relation
from pip_dagster.quality.sql import compiled
from pip_dagster.quality.suite import Expectation

HERE = Path(__file__).parent


def _beside(name):
    """A helper of this folder: pytest's importlib mode puts no test folder on the path."""
    spec = importlib.util.spec_from_file_location(f"quality_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tables, reference = _beside("tables"), _beside("reference")
NATIVE = ["not_null", "null", "between", "in_set", "not_in_set", "unique", "greater", "equal", "compound",
          "rows_between", "rows_equal", "mean", "sum", "min", "max", "median", "stdev",
          "unique_value_count"]  # fmt: skip


def _settings(examples):
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)


def _check(rows, suite, engines, *, loop):
    con = duckdb.connect(config={"threads": 1})
    tables.create(con, rows)
    relation = Relation.of(con, "t", partition_column="part", row_id="rid")
    found = [
        reference.seen(evaluate(relation, key=["rid"], expectations=suite, partitions=tables.PARTITIONS, engine=engine))
        for engine in engines
    ]
    if loop:
        found.append(reference.loop(con, "t", suite, tables.PARTITIONS))
    con.close()
    for one in found[:-1]:
        different = {k: (one[k], found[-1][k]) for k in one if one[k] != found[-1][k]}
        assert not different, {k: (next(e for e in suite if e.id == k[1]), v) for k, v in different.items()}


@pytest.mark.slice
@_settings(7)  # in soak 400
@given(tables.rows(), tables.suites(3))
def test_both_engines_give_the_verdicts_of_the_loop(rows, suite):
    _check(rows, suite, ["auto", "great_expectations"], loop=True)


@pytest.mark.slice
@_settings(10)  # in soak 1000
@given(tables.rows(), tables.suites(8, NATIVE))
def test_duckdb_gives_the_verdicts_of_great_expectations(rows, suite):
    _check(rows, suite, ["auto", "great_expectations"], loop=False)


@pytest.mark.soak
@_settings(400)
@given(tables.rows(40), tables.suites(5))
def test_both_engines_give_the_verdicts_of_the_loop_at_length(rows, suite):
    _check(rows, suite, ["auto", "great_expectations"], loop=True)


@pytest.mark.soak
@_settings(1000)
@given(tables.rows(40), tables.suites(8, NATIVE))
def test_duckdb_gives_the_verdicts_of_great_expectations_at_length(rows, suite):
    _check(rows, suite, ["auto", "great_expectations"], loop=False)


@pytest.mark.soak
def test_limits_of_every_column_are_the_same_in_duckdb():
    limits = dict.fromkeys(tables.NUMBERS, [-4, 0, -0.5, 0.1, 1.5, 2**53 - 1, 1e300])
    limits |= {"day": ["2013-01-01", "2013-01-02"], "at": [tables.NOON, "2013-01-01T12:00:01"]}
    limits |= {"seen_at": ["2013-01-01T12:00:00+00:00", "2013-01-01T14:00:00+02:00"]}
    suite = [
        Expectation(f"{c} {k} {v} {s}", "features", t, {"column": c, f"{k}_value": v, f"strict_{k}": s})
        for c, values in limits.items()
        for v in values
        for k in ("min", "max")
        for s in (True, False)
        for t in ["expect_column_values_to_be_between"]
    ]
    longest = max(len(v) for _, v in tables.COLUMNS.values())
    rows = [("2013-01-01", i, *(v[i % len(v)] for _, v in tables.COLUMNS.values())) for i in range(longest)]
    _check(rows, suite, ["auto", "great_expectations"], loop=False)
    types = {c: t for c, (t, _) in tables.COLUMNS.items()}
    left = [e.id for i, e in enumerate(suite) if compiled(i, e, types) is None]
    assert all("1e+300" in id_ for id_ in left), left


def test_the_random_suites_reach_duckdb():
    """Otherwise the tests above would compare Great Expectations with itself."""
    types = {c: t for c, (t, _) in tables.COLUMNS.items()}
    reached: list[bool] = []

    @settings(_settings(200), derandomize=True)
    @given(tables.suites(8, NATIVE))
    def draw(suite):
        reached.extend(compiled(i, e, types) is not None or covers(e, types) for i, e in enumerate(suite))

    draw()
    assert sum(reached) / len(reached) > 0.5
