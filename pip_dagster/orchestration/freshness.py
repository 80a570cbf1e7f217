"""Dagster's freshness policy of the assets, from the schedule or `monitoring.freshness`.

Dagster judges the time of the newest materialization of any partition, so a backfill of an old one counts too. Whether
the newest closed partition is live is judged by `monitoring/freshness.py`.
"""

from __future__ import annotations

import dagster as dg

from pip_dagster import clock
from pip_dagster.declaration.grid import grid_end
from pip_dagster.declaration.spec import PipelineSpec
from pip_dagster.monitoring.closing import longest_wait


def freshness_policy(spec: PipelineSpec) -> dg.FreshnessPolicy | None:
    """The policy; None where no run is expected: nothing is declared, or the grid has ended."""
    wait, end = longest_wait(spec), grid_end(spec.partitions)
    if wait is None:
        return None
    warn, fail = wait
    if end is not None and clock.wall() > end + fail:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=warn)
