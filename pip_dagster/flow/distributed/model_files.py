"""A model on its way to the tasks: its registered files, verified where they are read and again where they arrive."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.loaded import loading
from pip_dagster.registry.engines import engine_named
from pip_dagster.registry.errors import DigestMismatch
from pip_dagster.registry.load import load_predictor
from pip_dagster.registry.version import DIGEST_FILE, MANIFEST_FILE, ModelVersion

if TYPE_CHECKING:
    from pip_dagster.registry.engines.protocol import Predictor

_loaded: dict[tuple[str, int], Predictor] = {}


@dataclass(frozen=True)
class ModelFiles:
    """A version's manifest and model files, by name; `manifest_digest` vouches for all of them."""

    name: str
    version: int
    manifest_digest: str
    files: dict[str, bytes]

    @classmethod
    def of(cls, version: ModelVersion) -> ModelFiles:
        """Those of a registered version.

        Raises:
            RegistryError: a file is not the one that was registered.
        """
        manifest = version.manifest
        names = [each.file for each in manifest.composite.members] if manifest.composite else [manifest.model_file]
        files = {name: version.file_bytes(name) for name in names}
        files |= {name: (version.path / name).read_bytes() for name in (MANIFEST_FILE, DIGEST_FILE)}
        return cls(version.name, version.version, version.manifest_digest, files)

    def predictor(self, threads: int) -> tuple[ModelVersion, Predictor]:
        """The version and its predictor, loaded once in a process; every byte is verified first.

        Raises:
            RegistryError: a file is not the one that was registered.
        """
        with tempfile.TemporaryDirectory(prefix="pip_dagster_model_") as folder:
            for name, data in self.files.items():
                (Path(folder) / name).write_bytes(data)
            version = ModelVersion.read(self.name, self.version, Path(folder))
            if version.manifest_digest != self.manifest_digest:
                raise DigestMismatch(str(version), MANIFEST_FILE, self.manifest_digest, version.manifest_digest)
            key = (self.manifest_digest, threads)
            if key not in _loaded:
                with loading("scoring"):
                    engine_named(version.manifest.engine).preload()
                _loaded.clear()
                _loaded[key] = load_predictor(version, nthread=threads)
            return version, _loaded[key]
