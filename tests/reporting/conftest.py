"""A monitored project over 24 days, of which the last four are unlike the others."""

from __future__ import annotations

from pathlib import Path

import pytest

DAYS = [f"2024-03-{day:02}" for day in range(1, 25)]
# Each day its own three quarters of all 200 orders.
MORE = """
CREATE OR REPLACE TABLE raw.orders AS
SELECT (row_number() OVER ())::INTEGER AS order_id, d::DATE AS day, * EXCLUDE (order_id, day)
FROM raw.orders, generate_series(DATE '2024-03-01', DATE '2024-03-24', INTERVAL 1 DAY) g(d)
WHERE hash(order_id, d) % 4 < 3"""
SHIFT = "UPDATE raw.orders SET amount = amount * 4, shop = 'plain' WHERE day >= '2024-03-21'"
OUTCOMES = (
    "CREATE OR REPLACE TABLE raw.outcomes AS SELECT order_id, day, (quantity > 5)::INT AS returned FROM raw.orders"
)
LABELS = "SELECT order_id, returned FROM raw.outcomes WHERE day >= $start_date AND day < $end_date;"


@pytest.fixture
def reported(template, backend, tmp_path, helpers):
    """The test's own copy."""

    def make(root: Path) -> None:
        tiny = helpers.Tiny(root)
        tiny.source(MORE, SHIFT, OUTCOMES)
        (tiny.folder / "labels.sql").write_text(LABELS)
        sources = {name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")}
        tiny.declare(
            sources=sources,
            monitoring={"history": 14, "performance": {"segments": ["shop"]}},
            decisions={"returned": "score >= 0.5"},
            labels={"sql": "labels.sql", "outcome": "returned", "complete_after": "1 day"},
        )
        tiny.run(*DAYS)

    return helpers.Tiny(backend.copied(backend.once("reported", template, make), tmp_path / "shop"))
