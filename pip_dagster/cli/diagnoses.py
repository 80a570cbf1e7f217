"""What `pip-dagster doctor` looks at. Nothing here writes, and what fails is itself a diagnosis."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pip_dagster.cli.dagster_home import CONFIGURATION, VARIABLE, own_home, trouble_with_home
from pip_dagster.declaration.lake import Lake
from pip_dagster.errors import NoWarehouseError, OlderWarehouseError, SourceLockedError
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from datetime import timedelta

    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

HOST, PORT = "127.0.0.1", 3000
_LIBRARIES = ("duckdb", "dagster", "xgboost", "great-expectations")
_EXTENSIONS = ("ducklake", "postgres_scanner", "httpfs", "aws", "sqlite_scanner", "mysql_scanner", "delta", "iceberg")
_GB = 1e9


Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Diagnosis:
    """One line: how it is, what was looked at, what was found, and what to do where something is wrong."""

    level: Level
    what: str
    text: str
    remedy: str = ""


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

    look("python", _python)
    for name in _LIBRARIES:
        look(name, lambda name=name: _library(name))  # type: ignore[misc]
    if project is None:
        found.append(Diagnosis("problem", "project", missing or "none", "pip-dagster init NAME writes a new project"))
    else:
        look("project", lambda: _project(project))
        look("registry", lambda: _registry(project))
        look("warehouse", lambda: _warehouse(project))
        look("lock", lambda: _lock(project))
        look("published", lambda: _published(project))
        look("secrets", lambda: _secrets(project))
    look(VARIABLE, lambda: _home(project))
    look("port", lambda: _port(port))
    look("device", _device)
    look("memory", _memory)
    look("disk", lambda: _disk(project))
    look("extensions", lambda: _extensions(project))
    if project:
        look("sources", lambda: _sources(project))
    return found


def port_in_use(port: int) -> bool:
    """Whether somebody listens there on this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def free_port(after: int) -> int | None:
    """The next port that nobody listens at."""
    return next((port for port in range(after + 1, min(after + 100, 65536)) if not port_in_use(port)), None)


def _python() -> Iterator[Diagnosis]:
    from packaging.specifiers import SpecifierSet

    supported = SpecifierSet(metadata("pip-dagster")["Requires-Python"])
    found = platform.python_version()
    if found in supported:
        yield Diagnosis("ok", "python", f"{found}, pip-dagster {version('pip-dagster')}")
    else:
        yield Diagnosis("problem", "python", f"{found}; supported: {supported}", "Create the environment with another")


def _library(name: str) -> Iterator[Diagnosis]:
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


def _project(project: Project) -> Iterator[Diagnosis]:
    from pip_dagster.declaration.find import find_declarations

    names = ", ".join(find_declarations(project))
    if names:
        yield Diagnosis("ok", "project", f"{project.root}, with {names}; `pip-dagster check` checks what they declare")
    else:
        remedy = "dg scaffold defs pip_dagster.components.InferencePipeline NAME"
        yield Diagnosis("warning", "project", f"{project.root} declares no pipeline", remedy)


def _registry(project: Project) -> Iterator[Diagnosis]:
    from pip_dagster.registry.store import Registry

    if project.mlflow:
        yield Diagnosis("ok", "registry", f"MLflow at {project.mlflow.rpartition('@')[2]}, mirrored")
    if not project.registry.is_dir():
        remedy = "Train, then pip-dagster models register NAME --model FILE --sample FILE.parquet"
        yield Diagnosis("warning", "registry", f"{project.registry} does not exist: there is no model yet", remedy)
        return
    registry = Registry(project.registry)
    names = registry.models()
    versions = sum(len(registry.versions(name)) for name in names)
    yield Diagnosis("ok", "registry", f"{plural(len(names), 'model')}, {plural(versions, 'version')}")


def _warehouse(project: Project) -> Iterator[Diagnosis]:
    """Opened as it is: the lock of writers would be a file of ours."""
    import duckdb

    from pip_dagster.sql.names import CATALOG
    from pip_dagster.warehouse import schema
    from pip_dagster.warehouse.connect import attached, open_warehouse

    place, found = project.warehouse, 0
    others: list[Diagnosis] = []
    with duckdb.connect(config={"allow_unsigned_extensions": "false"}) as con:
        con.execute("SET TimeZone = 'UTC'")
        try:
            if isinstance(place, Lake):
                with open_warehouse(con, place, purpose="doctor", read_only=True, deadline=1):
                    found = schema.version(con)
                    others += [*_of_future(con), *_erasures(con, project), *_hashed(con, project)]
            elif not place.exists():
                raise NoWarehouseError(f"{place} does not exist yet")
            else:
                with attached(con, place, CATALOG, read_only=True, deadline=1):
                    con.execute(f"USE {CATALOG}")
                    found = schema.version(con)
                    if found == schema.VERSION:
                        others += [*_of_future(con), *_erasures(con, project), *_hashed(con, project)]
        except NoWarehouseError:
            yield Diagnosis("ok", "warehouse", "there is none yet: the first run creates it")
            return
        except SourceLockedError:
            yield Diagnosis("warning", "warehouse", f"{place} is in use by another process", "Wait for it; see lock")
            return
        except OlderWarehouseError as error:
            yield Diagnosis("warning", "warehouse", str(error), "Back it up; the next run migrates it")
            return
    text = f"{place if isinstance(place, Path) else 'the lake'}, schema version {found}"
    if found > schema.VERSION:
        yield Diagnosis("problem", "warehouse", f"{text}; supported: up to {schema.VERSION}", "Upgrade pip-dagster")
    elif found < schema.VERSION:
        remedy = "Back it up; the next run migrates it"
        yield Diagnosis("warning", "warehouse", f"{text}; this version writes {schema.VERSION}", remedy)
    else:
        yield Diagnosis("ok", "warehouse", text)
    yield from others


def _of_future(con: DuckDBPyConnection) -> Iterator[Diagnosis]:
    from pip_dagster import clock
    from pip_dagster.warehouse.access import newest_of_future

    newest, now = newest_of_future(con), clock.wall()
    if newest and clock.is_ahead(newest, now):
        yield Diagnosis(
            "warning",
            "clock",
            f"the ledger's newest record is of {newest:%Y-%m-%d %H:%M} UTC, {_long(newest - now)} ahead of this "
            "machine's clock; records get later times until then",
            "Set this machine's clock if it is behind; otherwise find the machine whose clock was ahead",
        )


def _long(span: timedelta) -> str:
    return plural(span.days, "day") if span.days else plural(round(span.total_seconds() / 60), "minute")


def _erasures(con: DuckDBPyConnection, project: Project) -> Iterator[Diagnosis]:
    from pip_dagster.cli.erasures_found import erasures_found

    for level, text, remedy in erasures_found(con, project):
        yield Diagnosis(level, "erasures", text, remedy)


def _hashed(con: DuckDBPyConnection, project: Project) -> Iterator[Diagnosis]:
    """The tables of servers whose rows every plan hashes, with the rows that runs have seen."""
    from pip_dagster.declaration.find import find_declarations, find_pipeline
    from pip_dagster.errors import DeclarationError
    from pip_dagster.flow.hashed import HINT, MANY, hashed_sources, hashes, rows_when_read

    for name in find_declarations(project):
        with suppress(DeclarationError):  # which `check` reports
            sources = find_pipeline(project, name).read_sources
            of = hashed_sources(sources)
            for source, rows in sorted(rows_when_read(con, name, of).items() if of else ()):
                text = f"{name}.{source}: {hashes(sources[source].place(None), rows)}"
                many = rows >= MANY
                yield Diagnosis("warning" if many else "ok", "sources", text, HINT if many else "")


def _lock(project: Project) -> Iterator[Diagnosis]:
    from pip_dagster.warehouse.lock import declared_deadline, holder_of
    from pip_dagster.warehouse.lock_file import pid_of

    if isinstance(project.warehouse, Lake):
        return
    deadline = declared_deadline()
    file = project.warehouse.with_name(project.warehouse.name + ".lock")
    if file.exists() and pid_of(file):
        yield Diagnosis("warning", "lock", holder_of(file), f"Writers wait up to {deadline:g} s for it")
    else:
        yield Diagnosis("ok", "lock", "free")


def _published(project: Project) -> Iterator[Diagnosis]:
    from pip_dagster.cli.published import open_published, pipelines

    if not project.publishes:
        yield Diagnosis("ok", "published", "nothing: readers query the lake")
        return
    if not project.published_database.is_file():
        there = isinstance(project.warehouse, Path) and project.warehouse.is_file()
        remedy = "pip-dagster publish" if there else ""
        yield Diagnosis("warning" if there else "ok", "published", "nothing is published yet", remedy)
        return
    with open_published(project) as con:
        names = ", ".join(pipelines(con)) or "no partition"
        yield Diagnosis("ok", "published", f"{project.published_database}, with {names}")


def _secrets(project: Project) -> Iterator[Diagnosis]:
    from pip_dagster.cli.secrets_found import secrets_found

    for level, text, remedy in secrets_found(project):
        yield Diagnosis(level, "secrets", text, remedy)


def _home(project: Project | None) -> Iterator[Diagnosis]:
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


def _port(port: int) -> Iterator[Diagnosis]:
    if port_in_use(port):
        remedy = f"pip-dagster ui --port {free_port(port)}"
        yield Diagnosis("warning", "port", f"{port} is in use, by a UI that runs or by something else", remedy)
    else:
        yield Diagnosis("ok", "port", f"{port} is free")


def _device() -> Iterator[Diagnosis]:
    from pip_dagster.flow.engine import choose_device

    device = choose_device("auto")
    yield Diagnosis("ok", "device", f"{device.name}, {device.reason}")


def _memory() -> Iterator[Diagnosis]:
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


def _disk(project: Project | None) -> Iterator[Diagnosis]:
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


def _extensions(project: Project | None) -> Iterator[Diagnosis]:
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


def _sources(project: Project) -> Iterator[Diagnosis]:
    """Which extension each declared source needs, and where DuckDB takes it from; `check` reads the sources."""
    from pip_dagster.declaration.find import find_declarations, find_pipeline
    from pip_dagster.errors import DeclarationError
    from pip_dagster.flow.origins.kinds import extensions_of

    needing: dict[str, list[str]] = {}
    for name in find_declarations(project):
        with suppress(DeclarationError):  # which `check` reports
            for source, declared in find_pipeline(project, name).spec.sources.items():
                for extension in extensions_of(declared):
                    needing.setdefault(extension, []).append(f"{name}.{source}")
    for extension, sources in needing.items():
        place, text = _place_of(extension), f"{', '.join(sources)}: DuckDB's extension {extension}"
        if place:
            yield Diagnosis("ok", "sources", f"{text}, {place}")
        else:
            remedy = "pip install 'pip-dagster[sources]', or have the first run fetch it from extensions.duckdb.org"
            yield Diagnosis("warning", "sources", f"{text}, which is not installed", remedy)


def _place_of(extension: str) -> str:
    """Where an extension is loaded from; empty where it would have to be fetched."""
    import duckdb

    from pip_dagster.warehouse.s3 import packaged

    if file := packaged(extension):
        return f"from its package, {file.parent}"
    with duckdb.connect() as con:
        row = con.execute(
            "SELECT install_path FROM duckdb_extensions() WHERE extension_name = $e AND installed", {"e": extension}
        ).fetchone()
    return f"installed in {row[0] or 'DuckDB'}" if row else ""


def _has_package(name: str) -> bool:
    try:
        version(f"duckdb-extension-{name.replace('_', '-')}")
    except PackageNotFoundError:
        return False
    return True
