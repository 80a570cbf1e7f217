"""A year of labels is evaluated and judged in seconds, in bounded memory."""

import time
from datetime import UTC, datetime

import duckdb
import pytest

from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.flow.performance import evaluate
from pip_dagster.monitoring.performance import judge_performance, read_performance
from pip_dagster.warehouse.connect import workspace

DAYS, ROWS, STORES = 365, 1_000, 20
SOURCES = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
SQL = """
SELECT order_id, day, gift, quantity, shop, amount, store
FROM raw.orders WHERE day >= $start_date AND day < $end_date
"""


@pytest.mark.soak
def test_a_year_of_twenty_segments(tiny, helpers):
    """Of some 4 CPU seconds, 1.5 measure; the others read labels and scores, store, and publish."""
    frame = helpers.orders(DAYS * ROWS, seed=5)
    frame.insert(0, "order_id", range(len(frame)))
    tiny.source("DROP TABLE raw.orders")
    with duckdb.connect(str(tiny.root / "sources.duckdb")) as con:
        con.execute(
            f"CREATE TABLE raw.orders AS SELECT * REPLACE (if(isnan(amount), NULL, amount) AS amount), "
            f"DATE '2024-03-01' + (order_id // {ROWS})::INT AS day, order_id % {STORES} AS store FROM frame"
        )
        con.execute(
            "CREATE TABLE raw.outcomes AS SELECT order_id, day, (random() > 0.8)::INT AS returned FROM raw.orders"
        )
    (tiny.folder / "labels.sql").write_text(
        "SELECT order_id, returned FROM raw.outcomes WHERE day >= $start_date AND day < $end_date"
    )
    monitoring = {"performance": {"segments": ["store"]}}
    labels = {"sql": "labels.sql", "outcome": "returned"}
    grid = {"every": "day", "start": "2024-03-01", "end": "2025-03-01"}
    tiny.declare(SQL, sources=SOURCES, partitions=grid, labels=labels, monitoring=monitoring)
    partitions = closed_partitions(tiny.pipeline().spec.partitions, datetime(2026, 1, 1, tzinfo=UTC))
    tiny.run_partitions(partitions)
    before = time.process_time()
    with workspace(threads=1) as con:
        found = evaluate(con, tiny.pipeline())
    evaluated = time.process_time() - before
    assert len(found.done) == DAYS and not found.problems
    before = time.process_time()
    with workspace(threads=1) as con:
        findings = judge_performance("orders", read_performance(con, tiny.pipeline()), Monitoring())
    judged = time.process_time() - before
    assert len(findings) == 2 + STORES
    assert evaluated < 8 and judged < 1, "twice what an idle machine takes"
    print(f"{evaluated:.1f} s to evaluate and store, {judged:.1f} s to judge")
