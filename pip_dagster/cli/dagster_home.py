"""Where Dagster keeps its runs: DAGSTER_HOME, or the project's own `.dagster_home`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.errors import BackfillError, ProjectError

if TYPE_CHECKING:
    from pip_dagster.declaration.project import Project

VARIABLE = "DAGSTER_HOME"
CONFIGURATION = "dagster.yaml"


def own_home(project: Project) -> Path:
    """The folder that is used where DAGSTER_HOME is not set."""
    return project.root / ".dagster_home"


def dagster_home(project: Project, *, create: bool) -> str | None:
    """DAGSTER_HOME, or the project's own folder where it is not set; None where there is neither.

    Args:
        create: create the project's folder where it does not exist, with a dagster.yaml.

    Raises:
        ProjectError: it cannot be created.
    """
    if named := os.environ.get(VARIABLE):
        return named
    home = own_home(project)
    configuration = home / CONFIGURATION
    if create and not configuration.is_file():
        text = _configuration(project)
        try:
            home.mkdir(exist_ok=True)
            configuration.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ProjectError(
                f"{home}, where Dagster keeps its runs, cannot be created: {error.strerror}. Set {VARIABLE} to a "
                f"folder that user {os.geteuid()} may write."
            ) from error
    return str(home) if configuration.is_file() else None


@contextmanager
def entered(home: str) -> Iterator[None]:
    """DAGSTER_HOME is this folder; a dagster.yaml may read the variable."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = home
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _configuration(project: Project) -> str:
    own = project.root / CONFIGURATION
    default = Path(__file__).parents[1] / "scaffold" / "templates" / CONFIGURATION
    return (own if own.is_file() else default).read_text(encoding="utf-8")


def trouble_with_home(home: str | None) -> tuple[str, str] | None:
    """What is wrong with DAGSTER_HOME, and what to do; None where nothing is."""
    if home and not (Path(home).is_absolute() and Path(home).is_dir()):
        return f"{VARIABLE} is {home!r}; expected the absolute path of a folder", "Create it, correct the variable"
    if home and not os.access(home, os.W_OK | os.X_OK):
        return f"{VARIABLE} is {home}, where user {os.geteuid()} may not write", "Name another folder"
    return None


def checked_home(project: Project, *, create: bool) -> str | None:
    """`dagster_home`, checked before anything is recorded.

    Raises:
        BackfillError: DAGSTER_HOME is set, and not to a folder by its absolute path that this user may write.
    """
    home = dagster_home(project, create=create)
    if trouble := trouble_with_home(home):
        what, remedy = trouble
        raise BackfillError(f"{what}. {remedy}, or run without Dagster with --no-dagster. Nothing was built.")
    return home
