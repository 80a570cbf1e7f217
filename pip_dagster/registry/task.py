"""Defaults that depend on a model's task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster.registry.engines import objective_of

if TYPE_CHECKING:
    from pip_dagster.registry.manifest import Manifest

CALIBRATED = "calibrated"


def judged_outputs(manifest: Manifest) -> tuple[str, ...]:
    """The score columns that gates compare: the calibrated score where there is one, else the model's outputs."""
    return (CALIBRATED,) if manifest.calibration else manifest.outputs


def default_decision(manifest: Manifest) -> str | None:
    """The decision where none is declared: the likelier class; None for a model that predicts a number."""
    if manifest.task == "binary":
        if manifest.calibration:
            return f"{CALIBRATED} >= 0.5"
        return "score >= 0" if objective_of(manifest).link == "identity" else "score >= 0.5"
    return "predicted_class" if manifest.classes and len(manifest.outputs) > 1 else None
