"""Defaults that depend on a model's task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster.registry.engines import objective_of

if TYPE_CHECKING:
    from pip_dagster.registry.manifest import Manifest

CALIBRATED = "calibrated"


def default_decision(manifest: Manifest, *, calibrated: bool) -> str | None:
    """The decision where none is declared: the likelier class; None for a model that predicts a number.

    Args:
        manifest: of a version.
        calibrated: whether the decision is over the calibrated score.
    """
    if manifest.task == "binary":
        if calibrated:
            return f"{CALIBRATED} >= 0.5"
        return "score >= 0" if objective_of(manifest).link == "identity" else "score >= 0.5"
    return "predicted_class" if manifest.classes and len(manifest.outputs) > 1 else None
