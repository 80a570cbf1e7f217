"""The model a run scores with: resolved once, verified when it is loaded, loaded when first needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from pip_dagster.declaration.canonical import canonical
from pip_dagster.errors import DeclarationError, RegistryError
from pip_dagster.flow.engine import Device, choose_device, library_versions
from pip_dagster.loaded import loading
from pip_dagster.registry.choose import registry_of
from pip_dagster.registry.engines import engine_named
from pip_dagster.registry.errors import RegistryUnreachable
from pip_dagster.registry.load import load_predictor
from pip_dagster.registry.signing import verify_signers

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.engines.protocol import Predictor
    from pip_dagster.registry.version import ModelVersion


@dataclass(frozen=True)
class ScoringModel:
    """A model version and where it scores. Whatever the alias is moved to meanwhile, a run keeps its model."""

    version: ModelVersion
    device: Device
    threads: int
    engine: str  # library versions, as canonical JSON
    role: str = "champion"
    alias: str | None = None  # None: the version was requested by its number

    @classmethod
    def resolve(
        cls,
        pipeline: Pipeline,
        threads: int,
        *,
        alias: str | None = None,
        version: int | None = None,
        role: str = "champion",
    ) -> ScoringModel:
        """The requested version, or else the one that the declaration's alias, or another one, names now.

        Raises:
            DeclarationError: no such model or alias, a required signer has not signed it, or the declared device
                cannot be had.
        """
        spec, alias = pipeline.spec, alias or pipeline.spec.scoring.alias
        try:
            found = registry_of(pipeline.project, spec.scoring).get(spec.scoring.model_name, version or alias)
            verify_signers(found, spec.scoring.required_signers, pipeline.project.root)
        except RegistryUnreachable as error:
            raise DeclarationError(
                f"Pipeline {spec.name}: {error}\nMLflow decides which version is {alias!r}, so nothing was scored. "
                "Its last answer is mirrored: to score with that meanwhile, declare "
                f"`model_name: {spec.scoring.model_name}`."
            ) from error
        except RegistryError as error:
            if spec.scoring.registry == "mlflow":
                where = f"scoring names models:/{spec.scoring.model_name}@{alias} in MLflow"
                raise DeclarationError(f"Pipeline {spec.name}: {where}: {error}") from error
            raise DeclarationError(
                f"Pipeline {spec.name}: scoring names model {spec.scoring.model_name!r}, "
                f"{f'version {version}' if version else f'alias {alias!r}'}: "
                f"{error}\nRegister one with `pip-dagster models register`, and point the alias at it with "
                f"`pip-dagster models promote {spec.scoring.model_name} VERSION --alias {alias}`."
            ) from error
        engine = found.manifest.engine
        on_ray = Device("cpu", "the tasks on a Ray cluster score on CPUs")
        device = on_ray if spec.scoring.ray else choose_device(spec.scoring.device, engine)
        named = None if version else alias
        return cls(found, device, threads, canonical(library_versions(engine)), role, named)

    def on_cpu(self, why: str) -> ScoringModel:
        """The same model on the CPU; `why` is recorded with every partition that it scores."""
        return replace(self, device=Device("cpu", why))

    @cached_property
    def predictor(self) -> Predictor:
        """The verified model.

        Raises:
            RegistryError: its bytes are not the registered ones, or it does not fit its manifest.
        """
        with loading("scoring"):
            engine_named(self.version.manifest.engine).preload()
        return load_predictor(self.version, nthread=self.threads, device=self.device.name)
