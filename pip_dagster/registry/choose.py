"""Which registry a pipeline, or a model's name, refers to."""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster.declaration.model_names import parse_models_uri
from pip_dagster.registry.errors import RegistryUnreachable
from pip_dagster.registry.protocol import ModelRegistry
from pip_dagster.registry.store import Registry

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project
    from pip_dagster.declaration.scoring import Scoring


def registry_of(project: Project, scoring: Scoring) -> ModelRegistry:
    """The registry that decides which version a pipeline scores with.

    Raises:
        RegistryUnreachable: MLflow decides, and no URI of it is configured.
    """
    return mlflow_registry(project) if scoring.registry == "mlflow" else Registry(project.registry)


def registry_and_name(project: Project, name: str) -> tuple[ModelRegistry, str]:
    """The registry and the plain name for `models:/returns` or `returns`.

    A plain name that some pipeline takes from MLflow is MLflow's: the next run would undo a move in the mirror alone.

    Raises:
        DeclarationError: a declaration cannot be read.
        InvalidName: the name is not a model's.
        RegistryUnreachable: as `registry_of`.
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
    """MLflow's registry at the project's URI, or at that of MLflow's own variables.

    Raises:
        RegistryUnreachable: neither is set.
    """
    from pip_dagster.registry.mlflow_registry import MlflowRegistry
    from pip_dagster.registry.mlflow_source import MlflowSource

    uri = project.mlflow or os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise RegistryUnreachable(
            "a model is named in MLflow (models:/…), but no MLflow registry is configured: set it in pyproject.toml, "
            '[tool.pip_dagster] mlflow = "http://mlflow.example:5000" or "sqlite:///data/mlflow.db", or in '
            "MLFLOW_TRACKING_URI"
        )
    file = uri.removeprefix("sqlite:///")
    if file != uri:  # relative to the project, whatever folder a run starts in
        uri = f"sqlite:///{project.root / file}"
    return MlflowRegistry(project.registry, MlflowSource(uri))


def version_withdrawn(pipeline: Pipeline, version: int, since: datetime) -> str | None:
    """Who rolled the alias back from this version since then, and why; None if nobody did.

    The rollback takes precedence over a run that requested the version by number before it. `ledger.live.make_live`
    checks the same for single partitions, in the transaction that would make them live.
    A rollback from the first version that ever scored changes no partition, only the alias.
    """
    scoring = pipeline.spec.scoring
    for move in registry_of(pipeline.project, scoring).alias_history(scoring.model_name, scoring.alias):
        if move.at > since and move.previous == version and move.rollback_id:
            why = move.why.removeprefix(f"{move.rollback_id}: ")
            return f"v{move.previous} was rolled back to v{move.version} (by {move.by}): {why}"
    return None
