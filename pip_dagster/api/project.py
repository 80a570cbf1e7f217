"""An open project: its pipelines and its models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pip_dagster.api.models import ModelsHandle
from pip_dagster.api.pipeline import PipelineHandle
from pip_dagster.api.shown import Shown, ShownTable
from pip_dagster.declaration.find import find_declarations, load_declared
from pip_dagster.declaration.project import Project
from pip_dagster.errors import NotFoundError, ProjectError


def open_project(path: str | Path | None = None) -> ProjectHandle:
    """Open a project; `pip_dagster.open` is this function.

    Args:
        path: its folder, which has `[tool.pip_dagster]` in pyproject.toml. Without one, PIP_DAGSTER_PROJECT names
            it, or it is the nearest folder above the working directory that is a project.

    Raises:
        ProjectError: there is no project, or its settings are not valid.
    """
    if path is None:
        return ProjectHandle(Project.find())
    if not Path(path).is_dir():
        raise ProjectError(f"{path} is not a folder; expected that of a project, which has a pyproject.toml.")
    return ProjectHandle(Project.named(Path(path)))


class ProjectHandle(Shown, Mapping[str, PipelineHandle]):
    """A project. It is a mapping of the names of its pipelines to their handles.

    Attributes:
        project: its settings: the folders of warehouse, registry and published files.
    """

    def __init__(self, project: Project) -> None:
        self.project = project

    @cached_property
    def _declared(self) -> dict[str, tuple[Path, dict[str, Any]]]:
        return find_declarations(self.project)

    @property
    def pipelines(self) -> tuple[str, ...]:
        """The names of the declared pipelines.

        Raises:
            DeclarationError: a defs.yaml cannot be read.
        """
        return tuple(sorted(self._declared))

    @cached_property
    def models(self) -> ModelsHandle:
        """The registered models."""
        return ModelsHandle(self.project)

    def __getitem__(self, name: str) -> PipelineHandle:
        """The pipeline of that name, as it is declared now.

        Raises:
            DeclarationError: its declaration is not valid.
            NotFoundError: no pipeline has this name.
        """
        self._declared = find_declarations(self.project)
        if name not in self._declared:
            known = self.pipelines
            text = f"{self.project.root} declares no pipeline {name!r}; it declares {', '.join(known) or 'none'}."
            raise NotFoundError(text, name=name, known=known)
        return PipelineHandle(load_declared(self.project, *self._declared[name]))

    def get(self, name: str, default: Any = None) -> Any:
        """The pipeline of that name, or the default; a declaration that is not valid is an error."""
        try:
            return self[name]
        except NotFoundError:
            return default

    def __iter__(self) -> Iterator[str]:
        return iter(self.pipelines)

    def __len__(self) -> int:
        return len(self._declared)

    def __contains__(self, name: object) -> bool:
        return name in self._declared

    def _table(self) -> ShownTable:
        rows = [(name, of.get("description") or "") for name, (_, of) in sorted(self._declared.items())]
        return ShownTable(f"Project {self.project.root}", ("pipeline", "description"), rows)
