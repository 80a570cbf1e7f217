"""What `pip-dagster doctor` looks at. Nothing here writes, and what fails is itself a diagnosis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pip_dagster.cli import diagnoses_machine as machine
from pip_dagster.cli import diagnoses_project as of_project
from pip_dagster.cli.dagster_home import VARIABLE
from pip_dagster.cli.diagnosis import Diagnosis

if TYPE_CHECKING:
    from pip_dagster.declaration.project import Project

_LIBRARIES = ("duckdb", "dagster", "xgboost", "great-expectations")


def diagnose(project: Project | None, missing: str | None, port: int) -> list[Diagnosis]:
    """Everything, in the order in which a person would fix it.

    Args:
        project: the project, if there is one.
        missing: why there is none.
        port: of Dagster's UI.
    """
    found: list[Diagnosis] = []

    def look(what: str, at: Callable[[], Iterator[Diagnosis]]) -> None:
        try:
            found.extend(at())
        except Exception as error:  # whatever it is, the other lines are as useful as before
            text = (str(error).strip() or type(error).__name__).splitlines()[0]
            found.append(Diagnosis("problem", what, text))

    look("python", machine.python)
    for name in _LIBRARIES:
        look(name, lambda name=name: machine.library(name))  # type: ignore[misc]
    if project is None:
        found.append(Diagnosis("problem", "project", missing or "none", "pip-dagster init NAME writes a new project"))
    else:
        look("project", lambda: of_project.project(project))
        look("registry", lambda: of_project.registry(project))
        look("warehouse", lambda: of_project.warehouse(project))
        look("lock", lambda: of_project.lock(project))
        look("published", lambda: of_project.published(project))
        look("secrets", lambda: of_project.secrets(project))
    look(VARIABLE, lambda: machine.home(project))
    look("port", lambda: machine.port(port))
    look("device", machine.device)
    look("memory", machine.memory)
    look("disk", lambda: machine.disk(project))
    look("extensions", lambda: machine.extensions(project))
    if project:
        look("sources", lambda: of_project.sources(project))
    return found
