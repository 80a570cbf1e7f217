"""Whether anything that a plan reads may have changed since an earlier plan, seen without reading it.

Files show it: a write changes at least one of a file's times. So does a rename, which brings another inode.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster import __version__
from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import SourceError
from pip_dagster.flow.origins import kinds
from pip_dagster.flow.plan import declared_of, with_model
from pip_dagster.flow.source_files import SourceFiles
from pip_dagster.sql.names import literal
from pip_dagster.warehouse import stamp
from pip_dagster.warehouse.connect import attached, workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.spec import Source

# A file may be written twice within the resolution of its times: one that was written in the last seconds proves
# nothing.
_SETTLED_SECONDS = 2.0
# What SQL says of the time, or by chance; such SQL may return other rows although nothing changed.
_UNSTEADY = re.compile(
    r"\b(now|today|(get_)?current_\w+|localtime\w*|transaction_timestamp|random|\w*uuid\w*|age|setseed|nextval)\b",
    re.IGNORECASE,
)


def state_of(pipeline: Pipeline, partitions: Sequence[Partition]) -> str | None:
    """A digest of everything that a plan, or the labels, of these partitions depend on, but for the time.

    None where it cannot be seen without reading: of a lake, of sources that are not files of this machine, and of files
    that were written a moment ago. Read it before the plan.

    Raises:
        DeclarationError: the declared model or alias does not exist.
    """
    project = pipeline.project
    if not isinstance(project.warehouse, Path):
        return None
    files = [project.warehouse, Path(f"{project.warehouse}.wal")]
    files += [stamp.published_stamp(project)] if project.publishes else []
    with workspace(threads=1) as con:
        for path in _paths(con, pipeline):
            if path is None:
                return None
            files.append(path)
    found: list[object] = []
    for source in pipeline.spec.sources.values():
        if not _has_files(source):
            identity = _identity(pipeline, source)
            if identity is None:
                return None
            found.append(identity)
    for file in files:
        if (state := _state(file)) is None:
            return None
        found += [str(file), state]
    wanted = with_model(pipeline, declared_of(pipeline))
    model = (wanted.manifest_digest, wanted.model_version, wanted.promoted_at)
    declared = (wanted.sql_digests, wanted.code_digest, pipeline.spec.model_dump_json(), pipeline.labels_sql)
    grid = (len(partitions), partitions[0].key, partitions[-1].key) if partitions else ()
    content = json.dumps([__version__, found, model, declared, grid], default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def _state(file: Path) -> tuple[int, ...] | None:
    """What a change of the file's content changes, empty where there is none; None of one written a moment ago."""
    try:
        of = file.stat()
    except FileNotFoundError:
        return ()
    except OSError:
        return None
    if max(of.st_mtime, of.st_ctime) > time.time() - _SETTLED_SECONDS:
        return None
    return of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns, of.st_ctime_ns


def _paths(con: DuckDBPyConnection, pipeline: Pipeline) -> Iterator[Path | None]:
    """The files of all sources that have some; None of a source that has none on this machine."""
    root = pipeline.project.root
    for source in filter(_has_files, pipeline.spec.sources.values()):
        if source.sqlite:
            yield from (root / source.sqlite, root / f"{source.sqlite}-wal")
        elif not source.parquet:
            path = _database(pipeline, source)
            yield from (path, path and Path(f"{path}.wal"))
        elif "://" in source.parquet:
            yield None
        else:
            pattern = SourceFiles.pattern_of(root, source.parquet)
            listed = con.execute(f"SELECT file FROM glob({literal(pattern)}) ORDER BY 1").fetchall()
            yield from (Path(file) for (file,) in listed)


def _has_files(source: Source) -> bool:
    return source.origin in (None, "database", "parquet", "sqlite")


def _identity(pipeline: Pipeline, source: Source) -> str | None:
    """What shows that a source which has no files is unchanged; None where nothing does, or it cannot be read now."""
    origin = kinds.origin_of(source)
    with suppress(SourceError):
        return origin.identity(pipeline.project.root, source) if origin else None
    return None


def _database(pipeline: Pipeline, source: Source) -> Path | None:
    place = source.database or pipeline.spec.source_database
    return pipeline.project.root / place if place and "://" not in place else None


def labels_are_steady(pipeline: Pipeline) -> bool:
    """Whether the labels' SQL returns the same rows as long as its sources are the same."""
    return _UNSTEADY.search(pipeline.labels_sql or "") is None


def reads_tables_only(pipeline: Pipeline) -> bool:
    """Whether every source in a DuckDB file is a table: the rows of a view may come from elsewhere."""
    tables: dict[Path, set[str]] = {}
    for source in pipeline.spec.sources.values():
        if source.origin in (None, "database") and (path := _database(pipeline, source)):
            tables.setdefault(path, set()).add(source.table.lower())
    with suppress(SourceError), workspace(threads=1) as con:
        for path, wanted in tables.items():
            with attached(con, path, "pip_source", read_only=True, deadline=0):
                found = con.execute(
                    "SELECT lower(schema_name || '.' || table_name) FROM duckdb_tables() "
                    "WHERE database_name = 'pip_source'"
                ).fetchall()
            if not wanted <= {row[0] for row in found}:
                return False
        return True
    return False
