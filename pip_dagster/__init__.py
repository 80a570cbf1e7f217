"""Production inference pipelines: XGBoost models on fresh data, partition by partition, with lineage."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pip_dagster.api.project import ProjectHandle

__all__ = ["__version__", "open"]

__version__ = "0.1.0"

# OpenMP's threads spin while they wait for each other. If another process has the core, they spin for its whole time
# slice: scoring and training were 5 to 15 times slower beside one busy process. Read once, when xgboost is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Dagster then hands the events of many partitions to its storage at once, which Postgres and
# `orchestration/event_storage.py` store in one transaction.
os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")


def open(path: str | Path | None = None) -> ProjectHandle:
    """Open a project, for its pipelines, rows and models; see `pip_dagster.api`.

    Args:
        path: its folder. Without one, PIP_DAGSTER_PROJECT names it, or it is the nearest folder above the working
            directory that is a project.

    Raises:
        ProjectError: there is no project, or its settings are not valid.
    """
    from pip_dagster.api.project import open_project

    return open_project(path)
