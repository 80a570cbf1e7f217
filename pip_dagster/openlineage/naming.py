"""What OpenLineage calls a dataset: by its place, so that every tool gives one table the same name; without secrets.

The names follow <https://openlineage.io/docs/spec/naming>. It has none for DuckDB: a file is named as OpenLineage's dbt
integration names it, `duckdb://` with the path, and `database.schema.table`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pip_dagster.declaration.lake import Lake
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.server import Server
from pip_dagster.declaration.spec import PipelineSpec, Source
from pip_dagster.errors import ProjectError

# The keys of a source that say where it is, and whether that is a database with the declared table in it. Of a source
# with none of them it is `source_database`.
_PLACES = {
    "database": True,
    "postgres": True,
    "mysql": True,
    "sqlite": True,
    "ducklake": True,
    "parquet": False,
    "csv": False,
    "json_files": False,
    "delta": False,
    "iceberg": False,
}
_PORTS = {"postgres": "5432", "mysql": "3306"}
_SCHEMES = {"gcs": "gs", "s3a": "s3", "s3n": "s3", "postgresql": "postgres", "abfs": "abfss"}
_AZURE = ("az", "azure", "abfss")
_WILD = re.compile(r"\*+|\*+\.[\w.]+|[^*?\[/]+=\*+")  # a component that names nothing: `*`, `**`, `*.parquet`, `year=*`
_SECRET = re.compile(
    r"(?i)\b(\w*(?:password|passwd|pwd|secret|token|signature|apikey|api_key|access_key)\w*)=[^&;/\s]+"
)


@dataclass(frozen=True)
class Dataset:
    """A dataset of OpenLineage: the system that it is in, and its name there."""

    namespace: str
    name: str


def of_source(spec: PipelineSpec, name: str, root: Path) -> Dataset | None:
    """The dataset that a declared source is; None of a server whose connection string is not there now."""
    source = spec.sources[name]
    kind, place = _place(source, spec.source_database)
    table = str(getattr(source, "remote_table", None) or source.table)
    text = _text(place, root)
    if text is None:
        return None
    if not _PLACES[kind]:
        return of_files(text, root)
    if kind == "database":
        return of_duckdb(root / text, table)
    if kind == "sqlite":
        return Dataset(f"sqlite://{(root / text).resolve()}", table.removeprefix("main."))
    if kind == "ducklake":
        return of_lake(text, root, table)
    return of_server(_SCHEMES.get(kind, kind), text, table)


def _place(source: Source, default: str | None) -> tuple[str, object]:
    for kind in _PLACES:
        if place := getattr(source, kind, None):
            return kind, place
    return "database", default or ""


def _text(place: object, root: Path) -> str | None:
    """A place as declared; of a server, what its variable or file holds now."""
    if isinstance(place, str):
        return place
    return place.now(root) if isinstance(place, Server) else None


def of_duckdb(path: Path, table: str) -> Dataset:
    """A table of a DuckDB file."""
    return Dataset(_clean(f"duckdb://{path.resolve()}"), f"{_clean(path.stem)}.{table}")


def of_files(place: str, root: Path) -> Dataset:
    """Files: a path, glob or URL, without components at its end that are wildcards alone: writers name the folder."""
    if "://" not in place:
        return Dataset("file", _clean(_folder(str((root / place).absolute()))))
    parts = urlsplit(place)
    scheme = _SCHEMES.get(parts.scheme.lower(), parts.scheme.lower())
    host, path = parts.netloc.rpartition("@")[2], _folder(parts.path).lstrip("/")
    if scheme in _AZURE and host.endswith(".core.windows.net"):
        container, _, path = path.partition("/")
        host, scheme = f"{container}@{host.split('.')[0]}.dfs.core.windows.net", "abfss"
    return Dataset(f"{scheme}://{host}", _clean(path))


def of_server(scheme: str, text: str, table: str) -> Dataset:
    """A table of a database server, by its connection string: a URL, or pairs as libpq reads them."""
    host, port, database = _server(text)
    in_schema = table if scheme == "postgres" else table.rpartition(".")[2]
    return Dataset(f"{scheme}://{host}:{port or _PORTS.get(scheme, '')}", ".".join(filter(None, (database, in_schema))))


def of_lake(text: str, root: Path, table: str) -> Dataset:
    """A table of a DuckLake, named by its catalog: a Postgres database, or a file."""
    found = text.removeprefix("ducklake:")
    if "://" in found or found.startswith("postgres:"):
        host, port, database = _server(found if found.startswith("postgres://") else found.removeprefix("postgres:"))
        return Dataset(f"ducklake://{host}:{port or _PORTS['postgres']}", f"{database}.{table}")
    path = root / found.partition(":")[2] if found.startswith(("sqlite:", "duckdb:")) else root / found
    return Dataset(_clean(f"ducklake://{path.resolve()}"), table)


def of_warehouse(project: Project, pipeline: str, table: str) -> Dataset:
    """A table of a pipeline in the project's warehouse."""
    if isinstance(project.warehouse, Lake):
        return of_lake(str(project.warehouse), project.root, f"{pipeline}.{table}")
    return of_duckdb(project.warehouse, f"{pipeline}.{table}")


def of_published(project: Project, pipeline: str, table: str) -> Dataset | None:
    """The same as readers query it; None where nothing is published."""
    return of_duckdb(project.published_database, f"{pipeline}.{table}") if project.publishes else None


def of_model(name: str, namespace: str) -> Dataset:
    """A model of the project's registry."""
    return Dataset(f"model://{namespace}", name)


def _server(text: str) -> tuple[str, str, str]:
    """Host, port and database of a connection string; nothing else of it."""
    if "://" in text:
        parts = urlsplit(text)
        host, _, port = parts.netloc.rpartition("@")[2].split(",")[0].rpartition(":")
        if not port.isdigit():
            host, port = parts.netloc.rpartition("@")[2].split(",")[0], ""
        return host or "localhost", port, unquote(parts.path.strip("/"))
    try:
        pairs = dict(Lake.parse(f"ducklake:postgres:{text}", Path("/"), "").parameters)
    except ProjectError:
        pairs = {}
    return (
        pairs.get("host", "localhost").split(",")[0],
        pairs.get("port", "").split(",")[0],
        pairs.get("dbname") or pairs.get("database") or pairs.get("db", ""),
    )


def _folder(path: str) -> str:
    parts = path.split("/")
    while len(parts) > 1 and _WILD.fullmatch(parts[-1]):
        parts.pop()
    return "/".join(parts)


def _clean(text: str) -> str:
    """A name without what looks like a secret."""
    return _SECRET.sub(r"\1=***", text)
