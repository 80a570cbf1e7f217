"""A registered version, ready to score: the one way from a version's folder to a predictor."""

from __future__ import annotations

from pip_dagster.registry.composite_predictor import CompositePredictor
from pip_dagster.registry.predictor import Predictor, load_booster
from pip_dagster.registry.version import ModelVersion


def load_predictor(version: ModelVersion, *, nthread: int, device: str = "cpu") -> Predictor:
    """Load a registered version. Its bytes are verified before XGBoost sees them.

    Raises:
        DigestMismatch: a file is not the one that was registered.
        CorruptRegistry: the manifest cannot be read.
        InvalidModel: the installed XGBoost cannot load the model.
        SignatureMismatch: the model is not the one that the manifest describes.

    """
    if version.manifest.composite is not None:
        return CompositePredictor.load_all(version, nthread=nthread, device=device)
    booster = load_booster(version.model_bytes(), str(version))
    return Predictor(booster, version.manifest, nthread=nthread, device=device, subject=str(version))
