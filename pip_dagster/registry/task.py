"""What kind of answer a model gives, and what follows from that."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pip_dagster.registry.manifest import Manifest


def default_decision(manifest: Manifest) -> str | None:
    """The decision where none is declared: what a binary or multi-class model is asked; None for a number."""
    if manifest.objective == "binary:logitraw":
        return "score >= 0"
    if manifest.objective.startswith("binary:"):
        return "score >= 0.5"
    return "predicted_class" if manifest.classes and len(manifest.outputs) > 1 else None
