"""Estimates before labels arrive: made after scoring, graded by labels, hidden and in alarm where they fail."""

import json

import dagster as dg
import pytest

from pip_dagster.flow.performance import evaluate
from pip_dagster.monitoring.estimates import MEANING, NO_LONGER, estimate_findings, read_estimates
from pip_dagster.monitoring.estimating import calibrate_after_labels, estimate_scored, estimate_stored, refit
from pip_dagster.warehouse.connect import workspace

DAYS = [f"2024-03-{day:02}" for day in range(1, 32)]
# Each day its own three quarters of all orders, with outcomes that follow the features.
MORE = """
CREATE OR REPLACE TABLE raw.orders AS
SELECT (row_number() OVER ())::INTEGER AS order_id, d::DATE AS day, * EXCLUDE (order_id, day)
FROM raw.orders, generate_series(DATE '2024-03-01', DATE '2024-03-31', INTERVAL 1 DAY) g(d)
WHERE hash(order_id, d) % 4 < 3"""
OUTCOMES = """
CREATE OR REPLACE TABLE raw.outcomes AS SELECT order_id, day,
  (quantity + gift::INT * 2 + (shop IN ('Zürich', 'plain'))::INT * 3 + coalesce(amount, 0) / 60
   + (hash(order_id, 7) % 1000 / 250.0 - 2) > 7)::INT AS returned
FROM raw.orders"""
LABELS = "SELECT order_id, returned FROM raw.outcomes WHERE day >= $start_date AND day < $end_date"
SOURCES = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}


def declare(tiny, **changes):
    (tiny.folder / "labels.sql").write_text(LABELS)
    labels = {"sql": "labels.sql", "outcome": "returned", "complete_after": "1 day"}
    tiny.declare(
        **{"sources": SOURCES, "labels": labels, "monitoring": {}, "decisions": {"high": "score > 0.6"}} | changes
    )
    return tiny


def version(tiny, number=1):
    return tiny.registry.get("returns", number)


def label(tiny, *days):
    with workspace(threads=1) as con:
        evaluate(con, tiny.pipeline(), days or None)
        return calibrate_after_labels(con, tiny.pipeline())


def do(tiny, call, *arguments, number=1, **options):
    with workspace(threads=1) as con:
        return call(con, tiny.pipeline(), version(tiny, number), *arguments, **options)


@pytest.fixture
def estimated(tiny, backend):
    """Twenty days with labels and a calibrator of them; five more are scored and estimated."""
    declare(tiny)
    tiny.source(MORE, OUTCOMES)
    tiny.run(*DAYS[:25])
    assert label(tiny, *DAYS[:20]) is None
    return tiny


def test_it_runs(estimated):
    print(do(estimated, estimate_scored, DAYS[20:25]))
    for each in do(estimated, read_estimates):
        print(each)
    label(estimated, *DAYS[20:25])
    for each in do(estimated, read_estimates):
        print(each.metric, each.partition_key, each.text, each.truth, each.hit)
    print(do(estimated, estimate_findings))
    assert 0
