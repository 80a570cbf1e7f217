"""The registered models of a project."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from pip_dagster.api.gating import Gating, gate_version
from pip_dagster.api.registering import check_may_store, first_alias, record_in_audit, register_version, stated
from pip_dagster.api.rows import TrainingSet, read_manifest
from pip_dagster.api.shown import Shown, ShownTable, silent
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.registry.listing import VersionSummary, aliases_of, say_metrics, summarize
from pip_dagster.registry.store import Registry

if TYPE_CHECKING:
    from pip_dagster.registry.registration import ModelStatements
    from pip_dagster.registry.sample import Sample
    from pip_dagster.registry.version import ModelVersion


@dataclass(frozen=True, repr=False)
class Versions(Shown, Sequence[VersionSummary]):
    """Versions in brief, oldest first: number, aliases, objective, metrics, who registered it and when.

    Attributes:
        listed: one summary for each version.
    """

    listed: tuple[VersionSummary, ...]

    def __getitem__(self, at: Any) -> Any:
        """One version's summary, or some."""
        return self.listed[at]

    def __len__(self) -> int:
        return len(self.listed)

    def _table(self) -> ShownTable:
        rows = [
            (each.model, f"v{each.version}", ", ".join(each.aliases), say_metrics(each.metrics), each.registered_at)
            for each in self.listed
        ]
        return ShownTable("Registered versions", ("model", "version", "aliases", "metrics", "registered"), rows)


class ModelsHandle(Shown):
    """The models in the project's registry: list, register, gate.

    Moving an alias to a better version is a promotion, which `pip-dagster models promote` does, with its gates.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models that have a version."""
        return tuple(self._registry.models())

    def versions(self, name: str | None = None) -> Versions:
        """The versions of a model, or of all.

        Raises:
            ModelNotFound: there is no such model.
        """
        registry = self._registry
        found = [version for each in ([name] if name else registry.models()) for version in registry.versions(each)]
        return Versions(tuple(summarize(version, aliases_of(registry, version)) for version in found))

    def get(self, name: str, ref: int | str = "champion") -> ModelVersion:
        """A version by number (`2`, `"v2"`) or alias: its manifest, and `load()`-free access to its files.

        Raises:
            ModelNotFound: there is no such model, version or alias.
        """
        return self._registry.get(name, ref)

    def register(
        self,
        name: str,
        *,
        model: Any,
        sample: Sample,
        alias: str | None = None,
        training_set: TrainingSet | str | Path | None = None,
        progress: Callable[[str], None] = silent,
        **statements: Unpack[ModelStatements],
    ) -> ModelVersion:
        """Check a model, derive its signature from it and a sample, and store it as the next version.

        Args:
            name: of the model, as `scoring.model_name` has it.
            model: an XGBoost Booster, or a file of one in UBJ or JSON.
            sample: some hundred to some hundred thousand training rows with the model's features: a DataFrame, an Arrow
                table or a Parquet file.
            alias: point this alias at the version, if it is not set yet.
            training_set: what the model was trained on, once it was read, or a Parquet file of it. Its digest, rows and
                proof become tags of the version, its range the training window.
            progress: is called with what did not succeed although the version is stored.
            **statements: what else is known about the model, such as `outcome` and `held_out`.

        Returns:
            The version; `created` is False if the same model was registered already.

        Raises:
            AliasConflict: the version is stored, and the alias names another one.
            RegistryError: the model, the sample and the statements contradict each other, or cannot be read.
            StorageError: this user may not write the registry.
            TypeError: the model or the training set is something else, such as None or its rows.
        """
        if not isinstance(training_set, TrainingSet | str | Path | None):
            given = type(training_set).__name__
            raise TypeError(f"`training_set` is a {given}; expected a TrainingSet or the path of its Parquet file.")
        if not (isinstance(model, str | Path) or hasattr(model, "save_model")):
            given = type(model).__name__
            raise TypeError(f"`model` is a {given}; expected an XGBoost Booster, or the path of a file of one.")
        check_may_store(self._project, name, alias)
        manifest = training_set.manifest if isinstance(training_set, TrainingSet) else None
        if isinstance(training_set, str | Path):
            manifest = read_manifest(training_set)
        described = stated(dict(statements), manifest)
        version = register_version(self._project, name, model=model, sample=sample, **described)
        if alias:
            first_alias(self._registry, version, alias)
            move = self._registry.alias_history(version.name, alias)[-1]
            record_in_audit(self._project, version.name, move, progress)
        return version

    def gate(self, pipeline: str, ref: int | str, *, progress: Callable[[str], None] = silent) -> Gating:
        """Compare a version of a pipeline's model with the live one on every gate. Promotes nothing.

        Args:
            pipeline: its name.
            ref: the version: `2`, `"v2"` or an alias.
            progress: is called with what is being done.

        Raises:
            DeclarationError: there is no such pipeline, or a gate cannot be run as it is declared.
            ModelNotFound: there is no such version.
            SourceError, WarehouseError: something it reads cannot be read.
        """
        return Gating(gate_version(find_pipeline(self._project, pipeline), ref, progress))

    @property
    def _registry(self) -> Registry:
        return Registry(self._project.registry)

    def _table(self) -> ShownTable:
        return ShownTable(f"Models of {self._project.root}: .versions(), .register(), .gate()")
