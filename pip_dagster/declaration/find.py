"""The pipelines that a project declares, found without loading its code location."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pip_dagster.declaration.files import line_of, read_pipelines
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec
from pip_dagster.errors import DeclarationError, InvalidDeclarationError

_SKIPPED = {"node_modules", "site-packages", "build", "dist"}


def find_pipeline(project: Project, name: str) -> Pipeline:
    """The pipeline of that name.

    Raises:
        DeclarationError: no pipeline has this name, or its declaration is invalid.
    """
    found = find_declarations(project)
    if name not in found:
        closed = _closed_folders(project)
        raise DeclarationError(
            f"{project.root} declares no pipeline {name!r}; it declares {', '.join(sorted(found)) or 'none'}."
            + (f" This user may not read {', '.join(closed)}: change the owner or mode." if closed else "")
        )
    return load_declared(project, *found[name])


def load_declared(project: Project, file: Path, attributes: dict[str, Any]) -> Pipeline:
    """The pipeline that a defs.yaml declares with these attributes.

    Raises:
        InvalidDeclarationError: its attributes are not what the schema expects.
        DeclarationError: a file that it names is invalid.
    """
    from pydantic import ValidationError

    try:
        spec = PipelineSpec.model_validate(attributes)
    except ValidationError as error:
        # Without the input, which may be a misplaced secret.
        name = str(attributes.get("name"))
        problems = [
            (line_of(file, name, each["loc"]), f"attributes.{'.'.join(map(str, each['loc']))}: {each['msg']}")
            for each in error.errors()
        ]
        raise InvalidDeclarationError(str(file), problems) from None
    return Pipeline.load(spec, file.parent, project)


def find_declarations(project: Project) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Name → file and attributes of every inference pipeline under the project's folder.

    Raises:
        DeclarationError: a defs.yaml cannot be read (`read_pipelines`), or two declare one name.
    """
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for file in sorted(project.root.rglob("defs.yaml")):
        folders = file.relative_to(project.root).parts[:-1]
        if any(part.startswith(".") or part in _SKIPPED for part in folders) or _in_nested_project(project, file):
            continue
        for attributes in read_pipelines(file):
            name = str(attributes.get("name"))
            if name in found:
                raise DeclarationError(f"{found[name][0]} and {file} both declare a pipeline {name!r}; rename one.")
            found[name] = (file, attributes)
    return found


def _closed_folders(project: Project) -> list[str]:
    """The folders of the project that this user may not list: a declaration in them is not found."""
    closed: list[str] = []
    for _ in os.walk(project.root, onerror=lambda error: closed.append(str(error.filename))):
        pass
    return closed


def _in_nested_project(project: Project, file: Path) -> bool:
    """Whether the file belongs to a project inside this one, such as an example."""
    for folder in file.parents:
        if folder == project.root:
            return False
        if (folder / "pyproject.toml").is_file():
            return True
    return False
