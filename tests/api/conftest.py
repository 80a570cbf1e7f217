"""A project whose orders have outcomes, and the shortest way to its handles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pip_dagster

LABELS = "SELECT order_id, returned FROM raw.outcomes WHERE day >= $start_date AND day < $end_date"
SOURCES: dict[str, Any] = {
    "orders": {"table": "raw.orders", "partition_column": "day"},
    "outcomes": {"table": "raw.outcomes", "partition_column": "day"},
}


class Shop:
    """`tiny` with outcomes of each order, and none of those that `order_id % 10` is 0 of."""

    def __init__(self, tiny: Any) -> None:
        self.tiny = tiny
        tiny.source(
            "CREATE TABLE raw.outcomes AS SELECT day, order_id, CASE WHEN order_id % 10 > 0 THEN order_id % 3 = 0 END "
            "AS returned FROM raw.orders"
        )
        (tiny.folder / "labels.sql").write_text(LABELS)
        self.declare()

    def declare(self, sql: str | None = None, labels: dict[str, Any] | None = None, **changes: Any) -> Shop:
        own = {"sql": "labels.sql", "outcome": "returned"} | (labels or {})
        self.tiny.declare(sql, **{"sources": SOURCES, "labels": own} | changes)
        return self

    def label(self, sql: str) -> Shop:
        (self.tiny.folder / "labels.sql").write_text(sql)
        return self

    @property
    def root(self) -> Path:
        return self.tiny.root

    @property
    def orders(self) -> Any:
        return pip_dagster.open(self.root)["orders"]

    def rows(self, *bounds: str, **rules: Any) -> Any:
        return self.orders.training_set(*(bounds or ("2024-03-01", "2024-03-04")), **rules)


@pytest.fixture
def shop(tiny):
    return Shop(tiny)
