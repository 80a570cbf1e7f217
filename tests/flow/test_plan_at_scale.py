"""A plan of many partitions compares in DuckDB; what it finds is what comparing each partition in Python finds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pip_dagster.declaration.canonical import canonical
from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.flow.fingerprints import fingerprints
from pip_dagster.flow.plan import make_plan
from pip_dagster.flow.source_digests import lay_source_digests
from pip_dagster.flow.sources import open_sources
from pip_dagster.ledger import plan
from pip_dagster.ledger.known import SOURCES
from pip_dagster.ledger.observations import lay_observations
from pip_dagster.ledger.plan_values import PlanPart
from pip_dagster.warehouse.connect import workspace

FIRST, SECOND, THIRD = "2024-03-01", "2024-03-02", "2024-03-03"


@st.composite
def worlds(draw):
    """A grid around a change of the clocks, and three sources with times of any kind."""
    every = draw(st.sampled_from(["hour", "day"]))
    zone = draw(st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo"]))
    start = draw(st.sampled_from([datetime(2024, 3, 9, 20), datetime(2024, 10, 26, 21), datetime(1969, 12, 31, 20)]))
    kinds = draw(st.lists(st.sampled_from(["DATE", "TIMESTAMP", "TIMESTAMPTZ"]), min_size=2, max_size=2))
    backs = draw(st.lists(st.sampled_from(["0 days", "20 minutes", "3 hours", "1 day"]), min_size=2, max_size=2))
    minutes = draw(st.lists(st.integers(-2000, 2500), max_size=30))
    return every, zone, start, kinds, backs, minutes


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(worlds())
def test_duckdb_finds_the_digests_that_a_run_records(tiny, world):
    every, zone, start, kinds, backs, minutes = world
    rows = ", ".join(f"({i}, {minute})" for i, minute in enumerate(minutes)) or "(NULL, NULL)"
    at = f"TIMESTAMPTZ '{start.isoformat()}+00' + to_minutes(m)"
    tiny.source(
        f"CREATE OR REPLACE TABLE raw.a AS SELECT ({at})::{kinds[0]} AS at, i FROM (VALUES {rows}) v(i, m)",
        f'CREATE OR REPLACE TABLE raw.b AS SELECT ({at})::{kinds[1]} AS at, i AS "i\'" FROM (VALUES {rows}) v(i, m)',
        "CREATE OR REPLACE TABLE raw.c AS SELECT 1 AS extra",
    )
    sources = {
        "a": {"table": "raw.a", "partition_column": "at", "lookback": backs[0]},
        "other": {"table": "raw.b", "partition_column": "at", "lookback": backs[1]},
        "c": {"table": "raw.c"},
        "orders": {"table": "raw.orders", "partition_column": "day"},
    }
    sql = "SELECT o.* FROM raw.orders o, raw.a, raw.b, raw.c WHERE day >= $start_date AND day < $end_date"
    grid = {"every": every, "start": start.isoformat(), "end": None, "time_zone": zone}
    pipeline = tiny.declare(sql, sources=sources, partitions=grid).pipeline()
    partitions = closed_partitions(pipeline.spec.partitions, start.replace(tzinfo=UTC) + timedelta(days=3))
    with workspace(threads=1) as con, open_sources(con, pipeline.spec, tiny.root):
        found = fingerprints(con, pipeline, partitions)
        lay_observations(con, None)
        laid = lay_source_digests(con, pipeline, partitions)
        texts = dict(con.execute(f"SELECT partition_key, sources FROM {SOURCES}").fetchall())
        assert texts == {key: canonical(of) for key, of in found.of.items()}
        for name, windowed in laid.items():
            assert {p.key: windowed.clock.window(p) for p in partitions} == found.windows[name]


def test_python_judges_only_the_partitions_that_differ(scored, monkeypatch):
    judged = []
    judge = plan._judge
    monkeypatch.setattr(plan, "_judge", lambda case: (judged.append(case.partition.key), judge(case))[1])
    scored.declare(partitions={"end": "2024-03-05"})
    assert make_plan(scored.pipeline()).current == 4 and judged == []
    scored.source(f"DELETE FROM raw.orders WHERE day = '{SECOND}' AND order_id % 2 = 0")
    assert [each.partition.key for each in make_plan(scored.pipeline()).stale] == judged == [SECOND]
    judged.clear()
    scored.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    assert len(make_plan(scored.pipeline()).on_hold) == 3 and len(judged) == 2, "those on hold for one reason are one"


def test_a_bucket_that_the_change_column_vouches_for_is_not_hashed_again(tiny):
    tiny.source("ALTER TABLE raw.orders ADD COLUMN changed BIGINT DEFAULT 1")
    source = {"table": "raw.orders", "partition_column": "day", "change_column": "changed"}
    tiny.declare(sources={"orders": source}, partitions={"end": "2024-03-05"})
    tiny.run()
    assert make_plan(tiny.pipeline()).current == 4
    tiny.source(f"UPDATE raw.orders SET quantity = quantity + 1 WHERE day = '{FIRST}'")
    assert make_plan(tiny.pipeline()).current == 4, "neither the count nor the newest change differs"
    of_one = f"(SELECT min(order_id) FROM raw.orders WHERE day = '{FIRST}')"
    tiny.source(f"UPDATE raw.orders SET changed = 2 WHERE order_id = {of_one}")
    found = make_plan(tiny.pipeline())
    assert [each.partition.key for each in found.stale] == [FIRST]
    assert found.stale[0].reasons[0].text == f"source changed: orders {FIRST} (same number of rows)"


@pytest.mark.parametrize("at_most", [1, 2, 3])
def test_the_parts_of_a_plan_are_the_plan(scored, at_most):
    scored.declare(partitions={"end": "2024-03-07"})  # two days that were never built
    scored.source(f"DELETE FROM raw.orders WHERE day = '{SECOND}' AND order_id % 2 = 0")
    scored.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    pipeline, at = scored.pipeline(), datetime(2026, 1, 1, tzinfo=UTC)
    whole = make_plan(pipeline, now=at)
    assert len(whole.stale) == 3 and whole.on_hold
    parts, after = [], None
    while not parts or after:
        parts.append(make_plan(pipeline, now=at, part=PlanPart(at_most, after)))
        after = parts[-1].more_from
    assert len(parts) == -(-4 // at_most), "two never built, one changed, one for those that differ in the model alone"
    assert [each for part in parts for each in part.stale] == list(whole.stale)
    held = {each.partition.key for part in parts for each in part.on_hold}
    assert held and held <= {each.partition.key for each in whole.on_hold}
    assert all(part.current == whole.current for part in parts)
    start = whole.stale[-1].partition.start
    newest = make_plan(pipeline, now=at, part=PlanPart(9, missing_from=start))
    assert newest.never_built == 1 and [*newest.stale] == [whole.stale[0], whole.stale[-1]]


def test_parts_of_a_plan_without_a_warehouse(tiny):
    pipeline, at = tiny.declare(partitions={"end": "2024-03-05"}).pipeline(), datetime(2026, 1, 1, tzinfo=UTC)
    first, second = make_plan(pipeline, now=at).stale[:2]
    found = make_plan(pipeline, now=at, part=PlanPart(1, missing_from=second.partition.start))
    assert found.never_built == 1 and found.stale == (second,) and found.more_from == second.partition.end
    assert first not in found.stale and found.current == 0
