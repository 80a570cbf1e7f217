"""Write a new project or pipeline: in a temporary folder first, where it must load, then in its place."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pip_dagster.errors import PipelineError, ScaffoldError
from pip_dagster.scaffold.files import Scaffold, TableSource
from pip_dagster.scaffold.proposal import Proposal, Wishes, propose
from pip_dagster.sql.names import RESERVED_SCHEMAS, literal, parquet_rows, quote
from pip_dagster.warehouse.faults import remedy

if TYPE_CHECKING:
    import duckdb

_NAME = re.compile(r"[a-z][a-z0-9_]*")
SAMPLE_TABLE = "raw.orders"
_SAMPLE_FILE = "data/sources.duckdb"


def check_name(name: str) -> None:
    """Refuse a name that cannot be a pipeline's and its package's.

    Raises:
        ScaffoldError: what is wrong with it.
    """
    check_pipeline_name(name)
    if importlib.util.find_spec(name) is not None:
        raise ScaffoldError(
            f"A Python module {name} is installed already, which a package {name} would hide. Choose another name."
        )


def check_pipeline_name(name: str) -> None:
    """Refuse a name that cannot be a pipeline's and its schema's.

    Raises:
        ScaffoldError: what is wrong with it.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ScaffoldError(
            f"{name!r} cannot be the name of a pipeline: expected lower-case letters, digits and _, beginning with a "
            "letter, and not a keyword of Python."
        )
    if name in RESERVED_SCHEMAS:
        raise ScaffoldError(f"{name!r} cannot be the name of a pipeline: the warehouse has a schema of that name.")


def proposal_of(source: TableSource, root: Path, table: str, wishes: Wishes) -> tuple[Proposal, frozenset[str]]:
    """What the table proposes, and the words that SQL reserves.

    Args:
        root: the folder that the source's paths are relative to.

    Raises:
        ScaffoldError: the table cannot be read, or nothing can be proposed from it.
    """
    if table.count(".") > 1:
        raise ScaffoldError(f"{table!r} is not a table; expected SCHEMA.TABLE, or a TABLE of the schema main.")
    table = table if "." in table else f"{'raw' if source.parquet else 'main'}.{table}"
    with _opened(source, root, table) as (con, relation):
        reserved = con.execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'")
        words = frozenset(word for (word,) in reserved.fetchall())
        return propose(con, table, relation, wishes), words


def tables_of(database: Path) -> list[str]:
    """The tables and views of a DuckDB file, as SCHEMA.TABLE.

    Raises:
        ScaffoldError: the file cannot be opened.
    """
    with _connected(database) as con:
        names = "SELECT table_schema || '.' || table_name FROM information_schema.tables WHERE table_catalog = 'it'"
        return sorted(name for (name,) in con.execute(names).fetchall())


def write_sample(root: Path) -> TableSource:
    """A DuckDB file with the sample table, in `root`.

    Raises:
        ScaffoldError: the file exists.
    """
    import duckdb

    file = root / _SAMPLE_FILE
    if file.exists():
        raise ScaffoldError(
            f"{file} exists, so no sample is written to it. Name a table of yours: --database, --table."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(file)) as con:
        con.execute((Path(__file__).parent / "sample.sql").read_text(encoding="utf-8"))
    return TableSource(database=_SAMPLE_FILE)


@contextmanager
def new_project(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends without an error, and disappears with one.

    Raises:
        ScaffoldError: `folder` exists and is not empty, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ScaffoldError(f"{folder} exists and is not empty. Choose another name, or empty it.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ScaffoldError(f"{folder} cannot be created: {error.strerror}. {remedy(str(error))}") from error
    try:
        yield draft
        draft.chmod(0o777 & ~_umask())
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except OSError as error:
        raise ScaffoldError(f"{folder} cannot be written: {error.strerror}. {remedy(str(error))}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write(folder: Path, files: Mapping[PurePosixPath, str]) -> None:
    """Write texts under `folder`, none over a file that exists.

    Raises:
        ScaffoldError: a file exists already; nothing is written then.
    """
    there = [str(name) for name in files if (folder / name).exists()]
    if there:
        raise ScaffoldError(f"{folder} has {', '.join(there)} already; nothing was written.")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def check_loads(root: Path, scaffold: Scaffold) -> None:
    """Load the pipeline that was written, as a command would.

    Raises:
        ScaffoldError: it does not load.
    """
    from pip_dagster.declaration.find import find_pipeline
    from pip_dagster.declaration.project import Project

    try:
        find_pipeline(Project.at(root), scaffold.name)
    except PipelineError as error:
        raise ScaffoldError(f"What would be written does not load; nothing was written. {error}") from error


@contextmanager
def _opened(source: TableSource, root: Path, table: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    import duckdb

    try:
        if source.parquet:
            with duckdb.connect() as con:
                yield con, parquet_rows([str(root / source.parquet)])
        else:
            assert source.database
            schema, name = table.split(".")
            with _connected(root / source.database) as con:
                yield con, f"it.{quote(schema)}.{quote(name)}"
    except duckdb.Error as error:
        text = str(error).splitlines()[0].rstrip(".!")
        where = source.parquet or source.database
        known = (
            "" if source.parquet else f" {where} has {', '.join(tables_of(root / str(source.database))) or 'no table'}."
        )
        raise ScaffoldError(f"{table} in {where} cannot be read: {text}.{known}") from error


@contextmanager
def _connected(database: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb

    from pip_dagster.warehouse.unreadable import why_unreadable

    if not database.is_file():
        raise ScaffoldError(f"There is no file {database}; expected a DuckDB database.")
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        try:
            con.execute(f"ATTACH {literal(str(database))} AS it (READ_ONLY)")
        except duckdb.Error as error:
            raise ScaffoldError(f"{database} {why_unreadable(database, error)}.") from error
        yield con


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
