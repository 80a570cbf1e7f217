"""How long a partition may be."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

Every = Literal["5 minutes", "10 minutes", "15 minutes", "20 minutes", "30 minutes", "hour", "day", "week", "month"]

# Those that are as long as one another on every day, in order.
STEPS: dict[str, timedelta] = {f"{n} minutes": timedelta(minutes=n) for n in (5, 10, 15, 20, 30)} | {
    "hour": timedelta(hours=1)
}
# The longest that a partition can be: the clocks may add an hour.
LONGEST = STEPS | {"day": timedelta(hours=25), "week": timedelta(days=8), "month": timedelta(32)}
