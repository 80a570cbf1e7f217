"""Which registry a pipeline, or a model's name, means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pip_dagster.declaration.model_names import parse_models_uri
from pip_dagster.registry.errors import RegistryUnreachable
from pip_dagster.registry.protocol import ModelRegistry
from pip_dagster.registry.store import Registry

if TYPE_CHECKING:
    from pip_dagster.declaration.project import Project
    from pip_dagster.declaration.scoring import Scoring


def registry_of(project: Project, scoring: Scoring) -> ModelRegistry:
    """The registry that decides what a pipeline scores with. Raises RegistryUnreachable where none is named."""
    return mlflow_registry(project) if scoring.registry == "mlflow" else Registry(project.registry)


def registry_and_name(project: Project, name: str) -> tuple[ModelRegistry, str]:
    """The registry and the plain name for ``models:/returns`` or ``returns``.

    A plain name is looked up in MLflow as well where a pipeline says that it lives there: a move made in the mirror
    alone would be undone by the next run. Raises InvalidName, RegistryUnreachable, DeclarationError.
    """
    if uri := parse_models_uri(name):
        return mlflow_registry(project), uri[0]
    from pip_dagster.declaration.find import find_declarations

    for _, attributes in find_declarations(project).values():
        scoring = attributes.get("scoring")
        declared = parse_models_uri(str(scoring.get("model_name"))) if isinstance(scoring, dict) else None
        if declared and declared[0] == name:
            return mlflow_registry(project), name
    return Registry(project.registry), name


def mlflow_registry(project: Project) -> ModelRegistry:
    """MLflow's registry at the project's URI, or at MLflow's own variables'. Raises RegistryUnreachable."""
    from pip_dagster.registry.mlflow_registry import MlflowRegistry
    from pip_dagster.registry.mlflow_source import MlflowSource

    uri = project.mlflow or os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise RegistryUnreachable(
            "a model is named in MLflow (models:/…), but no MLflow registry is: say where it is in pyproject.toml, "
            '[tool.pip_dagster] mlflow = "http://mlflow.example:5000" or "sqlite:///data/mlflow.db", or set '
            "MLFLOW_TRACKING_URI"
        )
    file = uri.removeprefix("sqlite:///")
    if file != uri:  # relative to the project, whatever folder a run is started in
        uri = f"sqlite:///{project.root / file}"
    return MlflowRegistry(project.registry, MlflowSource(uri))
