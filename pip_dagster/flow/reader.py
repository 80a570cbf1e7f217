"""Where a person's SQL runs: a database of its own, which reads the declared sources and nothing else."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.flow.sources import open_sources
from pip_dagster.flow.stage import handover
from pip_dagster.warehouse.confine import confine
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.memory import Room, shared

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.spec import PipelineSpec, Source

# Texts and names in a view's definition that can be files.
_QUOTED = re.compile(r"'((?:[^']|'')+)'|\"((?:[^\"]|\"\")+)\"")
_FILE = re.compile(r"[/\\]|\.\w+$")
_WILD = re.compile(r"[*?\[{]")


@contextmanager
def sources_alone(
    con: DuckDBPyConnection,
    spec: PipelineSpec,
    root: Path,
    *,
    known_at: Callable[[Source], datetime] | None = None,
) -> Iterator[DuckDBPyConnection]:
    """A connection to a new database with the declared sources, and with no way to any other file or to a setting.

    The warehouse is attached to `con`, which could not attach it any more if it were confined itself. The new database
    has the threads of `con`, and for as long as it is open half of its memory.

    Raises:
        DeclarationError, SourceError: as `open_sources`.
    """
    with (
        workspace(threads=Room.of(con).threads) as own,
        shared(con, own),
        open_sources(own, spec, root, known_at=known_at) as found,
    ):
        # A LIMIT without ORDER BY then takes the same rows each time, as in any DuckDB.
        own.execute("SET preserve_insertion_order = true")
        own.execute("SET arrow_lossless_conversion = true")  # rows leave this database as Arrow
        files, folders = _places(own, spec, root)
        files |= {*found.files, str(handover(own)), f"{handover(own)}.wal"}
        confine(own, files=files, folders=folders | found.folders)
        yield own


def _places(con: DuckDBPyConnection, spec: PipelineSpec, root: Path) -> tuple[set[str], set[str]]:
    """The files and folders that sources are read from beside attached databases.

    They are the declared Parquet files, and what the views of an attached database name: these are its owner's.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for source in spec.sources.values():
        if source.parquet and source.bucket:
            wild = _WILD.search(source.parquet)
            (folders if wild else files).add(_folder(source.parquet) if wild else source.parquet)
        elif source.parquet and (root / source.parquet).is_file():
            # The path as it is, and as the glob escapes it.
            files |= {str(root / source.parquet), glob.escape(str(root / source.parquet))}
        elif source.parquet:
            folder = _folder(source.parquet)
            folders |= {str(root / folder), str(Path(glob.escape(str(root))) / folder)}
    views = con.execute(
        "SELECT sql FROM duckdb_views() WHERE NOT internal AND database_name NOT IN ('memory', 'temp', 'system')"
    ).fetchall()
    for (sql,) in views:
        for text, name in _QUOTED.findall(sql):
            place = text.replace("''", "'") or name.replace('""', '"')
            if _FILE.search(place) and _WILD.search(place):
                folders.add(_folder(place) or ".")
            elif _FILE.search(place):
                files.add(place)
    return files, folders


def _folder(pattern: str) -> str:
    """The folder in which everything is that matches a pattern."""
    return _WILD.split(pattern)[0].rpartition("/")[0] or ("/" if pattern.startswith("/") else "")
