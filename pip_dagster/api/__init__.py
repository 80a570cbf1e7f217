"""The Python API: a project's pipelines, rows, lineage and models, for notebooks, training scripts and services.

`pip_dagster.open()` is the way in. Nothing is read before a method needs it, and each method reads what is there then.
Every error is a subclass of `pip_dagster.errors.PipelineError`; none ends the process.
"""

from __future__ import annotations

from pip_dagster.api.gating import Gating
from pip_dagster.api.lineage import PartitionLineage
from pip_dagster.api.models import ModelsHandle, Versions
from pip_dagster.api.pipeline import PipelineHandle
from pip_dagster.api.plans import PipelinePlan
from pip_dagster.api.project import ProjectHandle, open_project
from pip_dagster.api.replays import Replays
from pip_dagster.api.rows import Predictions, Rows, TrainingSet

__all__ = [
    "Gating",
    "ModelsHandle",
    "PartitionLineage",
    "PipelineHandle",
    "PipelinePlan",
    "Predictions",
    "ProjectHandle",
    "Replays",
    "Rows",
    "TrainingSet",
    "Versions",
    "open_project",
]
