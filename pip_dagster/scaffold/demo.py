"""The demo's project: the files of this repository that a wheel carries, written into an empty folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pip_dagster.errors import ScaffoldError
from pip_dagster.scaffold.files import INSTANCE_SETTINGS, frame_files
from pip_dagster.warehouse.faults import remedy

PACKAGE = "flights"
_CARRIED = (PACKAGE, "data/flight_delay")
_HOME = ".dagster_home/dagster.yaml"


def is_demo(folder: Path) -> bool:
    """Whether the folder has the demo's project, whole: pyproject.toml is written last."""
    return (folder / PACKAGE / "defs").is_dir() and (folder / "pyproject.toml").is_file()


def write_demo(folder: Path) -> None:
    """Write the demo's project. What is there of it already, after an interruption, stays as it is.

    Raises:
        ScaffoldError: the folder has files of its own, which are left alone, or it cannot be written.
    """
    try:
        files = _files()
        foreign = next((name for name in _present(folder) if not _is_ours(folder / name, files.get(name))), None)
        if foreign:
            raise ScaffoldError(
                f"{folder} has files of its own, such as {foreign}. Nothing was written: the demo needs an "
                "empty folder. `mkdir demo && cd demo && pip-dagster demo`"
            )
        for name, content in files.items():
            if not (target := folder / name).exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                draft = target.with_name(f".{target.name}.draft")
                draft.write_bytes(content)
                draft.replace(target)
    except OSError as error:
        raise ScaffoldError(
            f"The demo cannot be written to {folder}: {error.strerror}. {remedy(str(error))}"
        ) from error


def _files() -> dict[PurePosixPath, bytes]:
    """All files of the project; pyproject.toml, which makes it one, is the last."""
    carrier = _carrier()
    paths = [path for part in _CARRIED for path in sorted((carrier / part).rglob("*")) if path.is_file()]
    found = {
        PurePosixPath(path.relative_to(carrier)): path.read_bytes()
        for path in paths
        if path.suffix != ".pyc" and not path.name.startswith(".")
    }
    found[PurePosixPath(_HOME)] = INSTANCE_SETTINGS.read_bytes()
    return found | {name: text.encode() for name, text in frame_files(PACKAGE).items()}


def _carrier() -> Path:
    """The folder with the demo's files: beside this file in an installed wheel, else the repository."""
    installed = Path(__file__).parent / "demo-project"
    return installed if installed.is_dir() else Path(__file__).parents[2]


def _present(folder: Path) -> Iterator[PurePosixPath]:
    """The files of the folder, without those that are hidden and without virtual environments."""
    for place, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".") and each != "__pycache__"]
        folders[:] = [each for each in folders if not Path(place, each, "pyvenv.cfg").is_file()]
        yield from (PurePosixPath(Path(place, name).relative_to(folder)) for name in names if not name.startswith("."))


def _is_ours(file: Path, content: bytes | None) -> bool:
    return content is not None and file.read_bytes() == content
