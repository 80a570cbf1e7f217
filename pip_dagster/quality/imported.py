"""Great Expectations, imported without its analytics."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


@cache
def imported() -> ModuleType:
    """Great Expectations with its analytics off; the first call costs 6 to 13 s."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read on import and when a context is created
    import great_expectations

    return great_expectations
