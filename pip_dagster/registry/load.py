"""From a registered version to a predictor: the only way from a version's folder to scores."""

from __future__ import annotations

from pip_dagster.registry.composite_predictor import CompositePredictor
from pip_dagster.registry.engines import engine_named
from pip_dagster.registry.engines.protocol import Predictor
from pip_dagster.registry.version import ModelVersion


def load_predictor(version: ModelVersion, *, nthread: int, device: str = "cpu") -> Predictor:
    """Load a registered version with the engine that its manifest names. Its bytes are verified first.

    Raises:
        DigestMismatch: a file is not the one that was registered.
        CorruptRegistry: a file cannot be read.
        InvalidModel: the installed engine cannot load the model.
        SignatureMismatch: the model is not the one that the manifest describes.
    """
    manifest, subject = version.manifest, str(version)
    if manifest.composite is None:
        engine = engine_named(manifest.engine)
        return engine.load(version.model_bytes(), manifest, subject=subject, nthread=nthread, device=device)
    members = [
        engine_named(member.signature.engine).load(
            version.file_bytes(member.file),
            member.signature,
            subject=f"{version}, {member.file}",
            nthread=nthread,
            device=device,
        )
        for member in manifest.composite.members
    ]
    return CompositePredictor(members, manifest, subject=subject)
