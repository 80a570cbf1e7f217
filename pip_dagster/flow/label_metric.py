"""Which metric judges a model on labels: the declared one where it fits the model's task, or the task's default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError, RegistryError
from pip_dagster.registry.choose import registry_of
from pip_dagster.registry.engines import objective_of

if TYPE_CHECKING:
    from pip_dagster.declaration.gates import MetricName
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.split import CanaryLabels
    from pip_dagster.registry.booster_signature import Task
    from pip_dagster.registry.manifest import Manifest

# The first is the default.
_FITTING: dict[Task, tuple[MetricName, ...]] = {
    "binary": ("auc", "logloss", "rmse"),
    "multiclass": ("multi_logloss", "accuracy", "macro_f1", "ovr_auc"),
    "regression": ("rmse", "poisson_deviance", "auc", "logloss"),
    "count": ("poisson_deviance", "rmse"),
    "ranking": ("auc",),
    "survival": ("auc", "rmse"),
}
# Where no metric can be assumed: what the declared one requires.
_NO_DEFAULT = {
    "ranking": "scores of a ranking model are comparable within a group only",
    "survival": "survival times can be censored",
    "quantile": "a quantile is not an expected value",
    "expectile": "an expectile is not an expected value",
}


def label_metric(pipeline: Pipeline, manifest: Manifest, canary: CanaryLabels | None = None) -> MetricName:
    """The metric for a model's labels: the gates', or that of a `canary` which declares its own.

    Raises:
        DeclarationError: the declared metric does not fit the model, or none is declared and the task has no default.
    """
    own = canary.metric if canary else None
    task, declared = manifest.task, own or pipeline.gates.metric
    where = f"Pipeline {pipeline.spec.name}: {'scoring.canary.gate.labels.metric' if own else 'gates.metric'}"
    model = f"{manifest.model_name} v{manifest.version} ({manifest.objective})"
    fitting = _FITTING[task]
    if task != "multiclass" and len(manifest.outputs) > 1:
        raise DeclarationError(
            f"{where}: labels cannot judge {model}, which has outputs {', '.join(manifest.outputs)} and no classes. "
            f"Remove {pipeline.labels_name}; the other gates still apply."
        )
    if declared and declared not in fitting:
        raise DeclarationError(f"{where} is {declared}, which is not for {model}; expected {' or '.join(fitting)}.")
    no_default = _NO_DEFAULT.get(task) or _NO_DEFAULT.get(objective_of(manifest).meaning)
    if no_default and not declared:
        raise DeclarationError(
            f"{where} has no default for {model}: {no_default}. Declare {' or '.join(fitting)} if the outcomes of "
            f"{pipeline.labels_name} fit it, or remove {pipeline.labels_name}; the other gates still apply."
        )
    return declared or fitting[0]


def check_metric(pipeline: Pipeline) -> None:
    """Refuse a metric that does not fit the live model, before anything is promoted.

    Only a folder registry is read; where the alias names no version that can be read, there is nothing to check yet.

    Raises:
        DeclarationError: as `label_metric`.
    """
    scoring = pipeline.spec.scoring
    if pipeline.labels is None or scoring.registry != "folder":
        return
    try:
        manifest = registry_of(pipeline.project, scoring).get(scoring.model_name, scoring.alias).manifest
    except RegistryError:  # reported where the model scores
        return
    label_metric(pipeline, manifest)
    if scoring.canary and scoring.canary.gate.labels:
        label_metric(pipeline, manifest, scoring.canary.gate.labels)
