"""What `pip-dagster doctor` finds of the machine: Python, libraries, extensions, memory, disk, Dagster's home."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.cli.dagster_home import CONFIGURATION, VARIABLE, own_home, trouble_with_home
from pip_dagster.cli.diagnosis import Diagnosis, Level
from pip_dagster.cli.ports import free_port, port_in_use
from pip_dagster.declaration.lake import Lake
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.declaration.project import Project

_EXTENSIONS = ("ducklake", "postgres_scanner", "httpfs", "aws", "sqlite_scanner", "mysql_scanner", "delta", "iceberg")
_GB = 1e9


def python() -> Iterator[Diagnosis]:
    """Whether this Python is one that the package supports."""
    from packaging.specifiers import SpecifierSet

    supported = SpecifierSet(metadata("pip-dagster")["Requires-Python"])
    found = platform.python_version()
    if found in supported:
        yield Diagnosis("ok", "python", f"{found}, pip-dagster {version('pip-dagster')}")
    else:
        yield Diagnosis("problem", "python", f"{found}; supported: {supported}", "Create the environment with another")


def library(name: str) -> Iterator[Diagnosis]:
    """The installed version against those that this package requires."""
    from packaging.requirements import Requirement

    wanted = next(
        (each for each in map(Requirement, requires("pip-dagster") or []) if each.name == name and not each.marker),
        None,
    )
    try:
        found = version(name)
    except PackageNotFoundError:
        yield Diagnosis("problem", name, "is not installed", f"pip install '{wanted or name}'")
        return
    if wanted is None or wanted.specifier.contains(found, prereleases=True):
        yield Diagnosis("ok", name, found)
    else:
        yield Diagnosis("problem", name, f"{found}; supported: {wanted.specifier}", f"pip install '{wanted}'")


def home(project: Project | None) -> Iterator[Diagnosis]:
    """Where Dagster keeps its runs, and whether that can work."""
    home = os.environ.get(VARIABLE)
    if trouble := trouble_with_home(home):
        yield Diagnosis("problem", VARIABLE, trouble[0], f"{trouble[1]}, or unset it")
        return
    if home and not (Path(home) / CONFIGURATION).is_file():
        text = f"{home} has no {CONFIGURATION}: Dagster's defaults apply, and a run whose process dies never ends"
        yield Diagnosis("warning", VARIABLE, text, "Copy the one of the demo or of a new project; docs/operations.md")
    elif home:
        yield Diagnosis("ok", VARIABLE, home)
    elif project:
        own = own_home(project)
        there = (own / CONFIGURATION).is_file()
        yield Diagnosis("ok", VARIABLE, f"not set: {'runs are kept in' if there else 'the first run creates'} {own}")
    else:
        yield Diagnosis("ok", VARIABLE, "not set")


def port(port: int) -> Iterator[Diagnosis]:
    """Whether Dagster's UI can listen there."""
    if port_in_use(port):
        remedy = f"pip-dagster ui --port {free_port(port)}"
        yield Diagnosis("warning", "port", f"{port} is in use, by a UI that runs or by something else", remedy)
    else:
        yield Diagnosis("ok", "port", f"{port} is free")


def device() -> Iterator[Diagnosis]:
    """The GPU or CPU that scores, and why."""
    from pip_dagster.flow.engine import choose_device

    device = choose_device("auto")
    yield Diagnosis("ok", "device", f"{device.name}, {device.reason}")


def memory() -> Iterator[Diagnosis]:
    """Memory of machine and cgroup, and how much of it DuckDB may use."""
    from pip_dagster.flow.engine import available_threads
    from pip_dagster.warehouse import container
    from pip_dagster.warehouse.memory import all_memory, declared_memory_limit

    machine, limit = container.memory(), declared_memory_limit()
    usable = f"PIP_DAGSTER_MEMORY_LIMIT is {limit}" if limit else f"DuckDB may use {all_memory() / _GB:.1f} GB"
    text = f"{machine / _GB:.1f} GB by machine and cgroup; {usable}; {plural(available_threads(), 'thread')}"
    if machine < 2 * _GB:
        yield Diagnosis("warning", "memory", text, "Runs need about 2 GB; allow the container more")
    else:
        yield Diagnosis("ok", "memory", text)


def disk(project: Project | None) -> Iterator[Diagnosis]:
    """Free space, and rights, where files are written."""
    places = {"temporary files": Path(tempfile.gettempdir())}
    if project:
        warehouse = project.warehouse if isinstance(project.warehouse, Path) else project.published
        places["the project's data"] = next(each for each in warehouse.parents if each.is_dir())
    for name, folder in places.items():
        free = shutil.disk_usage(folder).free
        text = f"{free / _GB:.1f} GB free for {name} in {folder}"
        level: Level = "problem" if free < 0.2 * _GB else "warning" if free < 2 * _GB else "ok"
        yield Diagnosis(level, "disk", text, "" if level == "ok" else "Free space, or move it; docs/operations.md")
        if not os.access(folder, os.W_OK | os.X_OK):
            text = f"user {os.geteuid()} may not write in {folder}: commands that read work, runs do not"
            yield Diagnosis("warning", "disk", text, "Run as the project's owner, or change the owner or mode")


def extensions(project: Project | None) -> Iterator[Diagnosis]:
    """DuckDB's extensions that are installed, and those that a lake lacks."""
    import duckdb

    with duckdb.connect() as con:
        rows = con.execute("SELECT extension_name FROM duckdb_extensions() WHERE installed").fetchall()
    installed = {name for (name,) in rows}
    packaged = {name for name in _EXTENSIONS if _has_package(name)}
    here = [name for name in _EXTENSIONS if name in installed | packaged]
    needed = {"ducklake", "postgres_scanner"} if project and isinstance(project.warehouse, Lake) else set()
    others = [name for name in _EXTENSIONS if name not in here]
    text = (", ".join(here) or "none") + (f"; not here: {', '.join(others)}" if others else "")
    if lacking := sorted(needed - {*here}):
        remedy = "pip install 'pip-dagster[lake]'"
        yield Diagnosis("problem", "extensions", f"{', '.join(lacking)} missing, which the lake needs", remedy)
    else:
        yield Diagnosis("ok", "extensions", text)


def _has_package(name: str) -> bool:
    try:
        version(f"duckdb-extension-{name.replace('_', '-')}")
    except PackageNotFoundError:
        return False
    return True
