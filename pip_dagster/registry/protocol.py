"""The interface of a registry, for the rest of the project."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pip_dagster.registry.aliases import ANYWHERE, AliasChange, Anywhere
from pip_dagster.registry.version import ModelVersion


class ModelRegistry(Protocol):
    """Immutable versions in a folder, and aliases with a history.

    `Registry` is the folder itself. `MlflowRegistry` looks up in MLflow which version an alias names and mirrors it
    into the folder, so that replay, lineage and lists need the folder alone.
    """

    @property
    def root(self) -> Path:
        """The folder; gate reports and signatures are in it too."""
        ...

    def models(self) -> list[str]:
        """The names of all models that have a version here."""
        ...

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model that are here, oldest first."""
        ...

    def get(self, name: str, ref: int | str) -> ModelVersion:
        """The version that `ref` names: 2, "2", "v2", or an alias."""
        ...

    def set_alias(
        self,
        name: str,
        alias: str,
        version: int,
        *,
        by: str,
        why: str,
        expect: int | None | Anywhere = ANYWHERE,
        rollback_id: str | None = None,
    ) -> AliasChange:
        """Point an alias at a version; with `expect` only if it points there now (None: only if it is not set)."""
        ...

    def alias(self, name: str, alias: str) -> int | None:
        """The version an alias points at now, None when it is not set."""
        ...

    def aliases(self, name: str) -> dict[str, int]:
        """Every alias of a model with the version it was last known to point at."""
        ...

    def alias_history(self, name: str, alias: str | None = None) -> list[AliasChange]:
        """The moves of one alias, or of all, oldest first."""
        ...
