"""The Python API: a project's pipelines, rows, lineage and models, for notebooks, training scripts and services.

`pip_dagster.open()` is the way in. Nothing is read before a method needs it, and each method reads what is there then.
Every error is a subclass of `pip_dagster.errors.PipelineError`; none ends the process.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pip_dagster.api.gating import Gating
    from pip_dagster.api.lineage import PartitionLineage
    from pip_dagster.api.models import ModelsHandle, Versions
    from pip_dagster.api.pipeline import PipelineHandle
    from pip_dagster.api.plans import PipelinePlan
    from pip_dagster.api.project import ProjectHandle, open_project
    from pip_dagster.api.replays import Replays
    from pip_dagster.api.rows import LazyRows, Predictions, TrainingSet

__all__ = [
    "Gating",
    "LazyRows",
    "ModelsHandle",
    "PartitionLineage",
    "PipelineHandle",
    "PipelinePlan",
    "Predictions",
    "ProjectHandle",
    "Replays",
    "TrainingSet",
    "Versions",
    "open_project",
]

# A command that reads one of the modules must not pay for the others.
_MODULES = ("gating", "lineage", "models", "pipeline", "plans", "project", "replays", "rows")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            if (found := getattr(import_module(f"pip_dagster.api.{module}"), name, None)) is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
