"""Where the declared sources are: Parquet files, and DuckDB files, attached read-only under the names they need."""

from __future__ import annotations

import glob
import os
import re
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.errors import SourceError, SourceLockedError
from pip_dagster.warehouse import s3
from pip_dagster.warehouse.connect import attached
from pip_dagster.warehouse.unreadable import why_unreadable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec, Source

# Names that DuckDB gives no file: it appends `_db`.
_RESERVED = {"main", "temp", "system"}
# The catalog that a view names and that is not attached: DuckDB 1.5, and 2.
_MISSING = re.compile(r'Catalog "(.+?)" does not exist|because schema "(.+)\.[^."]+" does not exist')


class SourceFiles:
    """Each DuckDB file is attached under a random name, so that no SQL can name what is not declared.

    Views can name their file's catalog, as those of dbt-duckdb do: the file's name without its endings. A file is
    attached under that name as well once a view needs it. Files whose views do not need it may have one name.
    """

    def __init__(self, con: DuckDBPyConnection, spec: PipelineSpec, root: Path, stack: ExitStack) -> None:
        self.root = root
        self.by_name: set[str] = set()  # the catalogs that views needed
        self._con, self._spec, self._stack = con, spec, stack
        self._catalogs: dict[Path, str] = {}
        for bucket in sorted({source.bucket for source in spec.sources.values() if source.bucket}):
            s3.reach(con, bucket, f"pipeline {spec.name}", SourceError)
        self._named: dict[str, dict[Path, Path]] = {}  # catalog in lower case → the files of that name, as declared
        for source in spec.sources.values():
            if source.origin in (None, "database"):
                path = root / self.place(source)
                self._named.setdefault(catalog_of(path).lower(), {}).setdefault(_file(path), path)

    def place(self, source: Source) -> str:
        """Where a source is, for people."""
        return source.place(self._spec.source_database)

    def pattern(self, source: Source) -> str | None:
        """A glob of the declared Parquet files. A file of that very name is no pattern, nor is the project's path."""
        if not source.parquet or source.bucket:
            return source.parquet
        return self.pattern_of(self.root, source.parquet)

    @staticmethod
    def pattern_of(root: Path, declared: str) -> str:
        """The same of files of a folder as they are declared."""
        if holds((root / declared).is_file):
            return glob.escape(str(root / declared))
        return str(Path(glob.escape(str(root))) / declared)

    def catalog(self, source: Source) -> str:
        """The name under which the source's file is attached."""
        return self._catalogs[_file(self.root / self.place(source))]

    def attach(self, name: str, source: Source) -> str:
        """Attach the source's DuckDB file, unless it is, and return the name.

        Raises:
            SourceError: the file cannot be attached; names pipeline, source, file and remedy.
        """
        path, where = self.root / self.place(source), self._where(name, source)
        if (file := _file(path)) in self._catalogs:
            return self._catalogs[file]
        catalog = f"source_{secrets.token_hex(8)}"
        try:
            self._stack.enter_context(attached(self._con, path, catalog, read_only=True))
        except SourceLockedError as error:
            remedy = "close that connection, or have the writer export the table to Parquet and declare `parquet`"
            raise SourceLockedError(f"{where}: {error}; {remedy}.") from error
        except SourceError as error:
            if not path.exists():
                raise SourceError(f"{where}: {error}") from error
            raise SourceError(f"{where}: {path} {why_unreadable(path, error.__cause__ or error)}.") from error
        except OSError as error:
            raise SourceError(f"{where}: {path} {why_unreadable(path, error)}.") from error
        self._catalogs[file] = catalog
        if catalog_of(path).lower() == "memory":
            self._check_memory(where, path, catalog)
        return catalog

    def attach_for(self, error: Exception, name: str, source: Source) -> bool:
        """Attach the file that a view names and DuckDB misses; False where no declared file has that name.

        Raises:
            SourceError: two declared files have it, or the schema of a declared table has.
        """
        catalog = missing_catalog(error)
        files = self._named.get((catalog or "").lower(), {})
        if catalog is None or not files or catalog.lower() in self.by_name:
            return False
        where = f"{self._where(name, source)}: a view names the catalog {catalog!r}"
        if len(files) > 1:
            raise SourceError(
                f"{where}, and {len(files)} declared files have that name: {', '.join(map(str, files.values()))}. "
                "Rename the one whose views do not name it, or copy its tables to a file of another name."
            )
        (path,) = files.values()
        for each in self._spec.sources.values():
            if each.table.split(".")[0].lower() == catalog.lower():
                raise SourceError(
                    f"{where}, which is {path}, so that {each.table} has two meanings in SQL. Declare a view of "
                    f"{each.table} in another schema instead, or write the view without {catalog!r}."
                )
        self._stack.enter_context(attached(self._con, path, catalog, read_only=True))
        self.by_name.add(catalog.lower())
        return True

    def unknown_catalog(self, error: Exception, place: str) -> str | None:
        """What to do about a view that names a catalog which no declared file has."""
        catalog = missing_catalog(error)
        if catalog is None or catalog in self._catalogs.values():
            return None
        return (
            f"A view in it names the catalog {catalog!r}. If that is another file, declare a source in "
            f"{catalog}.duckdb; if {place} had that name, rename it back; or write the view without the catalog."
        )

    def _where(self, name: str, source: Source) -> str:
        return f"Pipeline {self._spec.name}: source {name!r} ({source.table})"

    def _check_memory(self, where: str, path: Path, catalog: str) -> None:
        """Refuse views that name their file `memory`: in this connection, that is the catalog of the sources' views."""
        named = self._con.execute(
            "SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE database_name = $c AND NOT internal "
            "AND regexp_matches(sql, $pattern)",
            {"c": catalog, "pattern": r'(?i)\bmemory"?\.'},
        ).fetchone()
        if named:
            raise SourceError(
                f"{where}: the view {named[0]} of {path} names the catalog 'memory', which is DuckDB's own. Rename the "
                "file and create the view again."
            )


def holds(test: Callable[[], bool]) -> bool:
    """A test of a path; False where its folder is closed to this process."""
    try:
        return test()
    except OSError:
        return False


def _file(path: Path) -> Path:
    return Path(os.path.realpath(path))


def catalog_of(path: Path) -> str:
    """The catalog that DuckDB calls a file."""
    name = next(filter(None, path.name.split(".")), "")
    return f"{name}_db" if name.lower() in _RESERVED else name


def missing_catalog(error: Exception) -> str | None:
    """The catalog that a query names and that is not attached."""
    found = _MISSING.search(str(error))
    return (found[1] or found[2]) if found else None
