"""What `pip-dagster doctor` finds of a project: its declarations, registry, warehouse, sources, what it publishes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.cli.diagnosis import Diagnosis
from pip_dagster.declaration.lake import Lake
from pip_dagster.errors import NoWarehouseError, OlderWarehouseError, SourceLockedError
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from datetime import timedelta

    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project


def project(project: Project) -> Iterator[Diagnosis]:
    """The pipelines that it declares."""
    from pip_dagster.declaration.find import find_declarations

    names = ", ".join(find_declarations(project))
    if names:
        yield Diagnosis("ok", "project", f"{project.root}, with {names}; `pip-dagster check` checks what they declare")
    else:
        remedy = "dg scaffold defs pip_dagster.components.InferencePipeline NAME"
        yield Diagnosis("warning", "project", f"{project.root} declares no pipeline", remedy)


def registry(project: Project) -> Iterator[Diagnosis]:
    """Its models and their versions."""
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


def warehouse(project: Project) -> Iterator[Diagnosis]:
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
                    others += _recorded(con, project)
            elif not place.exists():
                raise NoWarehouseError(f"{place} does not exist yet")
            else:
                with attached(con, place, CATALOG, read_only=True, deadline=1):
                    con.execute(f"USE {CATALOG}")
                    found = schema.version(con)
                    if found == schema.VERSION:
                        others += _recorded(con, project)
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


def _recorded(con: DuckDBPyConnection, project: Project) -> Iterator[Diagnosis]:
    """What the ledger has records of. The warehouse is the current catalog."""
    from pip_dagster.cli.erasures_found import erasures_found

    yield from _of_future(con)
    yield from erasures_found(con, project)
    yield from _hashed(con, project)


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


def lock(project: Project) -> Iterator[Diagnosis]:
    """Who writes in the warehouse."""
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


def published(project: Project) -> Iterator[Diagnosis]:
    """What readers see."""
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


def secrets(project: Project) -> Iterator[Diagnosis]:
    """The secrets of pseudonyms, and the key files of anchors."""
    from pip_dagster.cli.secrets_found import secrets_found

    yield from secrets_found(project)


def sources(project: Project) -> Iterator[Diagnosis]:
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
