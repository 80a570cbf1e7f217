"""The real daemon, without most of its waiting: a backfill's every step would take half a minute."""

from pathlib import Path

import pytest

# Python runs it first in each process that has its folder on PYTHONPATH.
SITECUSTOMIZE = """
import sys

if "dagster._daemon" in sys.orig_argv:
    import dagster._daemon.controller
    import dagster._daemon.sensor
    from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator

    dagster._daemon.controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1  # 30: between looks at backfills
    dagster._daemon.sensor.MIN_INTERVAL_LOOP_TIME = 1  # 5
    QueuedRunCoordinator.dequeue_interval_seconds = 1  # 5
"""


@pytest.fixture(scope="session")
def quick_daemon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH: Dagster's daemon looks each second for what there is to do."""
    folder = tmp_path_factory.mktemp("quick_daemon")
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return folder
