"""The small database of views over the published rows, which readers open.

The views name patterns of files by their absolute path, and show whatever files are there. They change when a table
gets its first rows, and when the project was moved.
"""

from __future__ import annotations

import glob
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pip_dagster.errors import WarehouseError
from pip_dagster.quoted import first
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse import advisory, kinds, stamp
from pip_dagster.warehouse.confine import CONFINED, confine
from pip_dagster.warehouse.published_rows import ATTACHED, Table, as_read, attached_tables, columns_of, in_files, sync
from pip_dagster.warehouse.view_sql import parsed

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project


def publish_views(
    con: DuckDBPyConnection, folder: Path, filled: Mapping[Table, Iterable[str]], *, everything: bool = False
) -> None:
    """Rebuild the database of views, unless it shows the files in this folder and the tables just filled.

    `filled`: table → its columns of the type STRUCT. With `everything` it is rebuilt, since it may have been altered.
    """
    if not has_rows(folder) or (show(folder, filled) and not everything):
        return
    with advisory.holding(con, [advisory.key_of("views")]) if advisory.is_shared(con) else nullcontext():
        _replace(con, folder, [_heading(folder), *statements(con, folder)])


def has_rows(folder: Path) -> bool:
    """Whether rows are published in this folder."""
    return next(folder.glob("*/*.duckdb"), None) is not None


def show(folder: Path, tables: Mapping[Table, Iterable[str]] | None = None) -> bool:
    """Whether the database of views shows this folder, with these tables. A project may have been moved or copied."""
    try:
        lines = {*(folder / "views.sql").read_text(encoding="utf-8").splitlines()}
    except OSError:
        return False
    there = folder.with_suffix(".duckdb").is_file() and _heading(folder) in lines
    return there and all(_shows(lines, folder, table, structs) for table, structs in (tables or {}).items())


def _shows(lines: Iterable[str], folder: Path, table: Table, structs: Iterable[str]) -> bool:
    """Whether one of the lines is the view of this table, with these columns of the type STRUCT among its own."""
    begin, end = _view(folder, table, ()).split(" FROM ", 1)
    reads = [as_read([name]).partition("(")[2].rstrip(")") for name in structs]
    return any(
        line.startswith(begin) and line.endswith(f" FROM {end}") and all(each in line for each in reads)
        for line in lines
    )


@contextmanager
def opened(project: Project) -> Iterator[DuckDBPyConnection]:
    """The views over what is published, in UTC and read-only; nothing but the published folder can be read.

    After a project was moved or copied, they are those of its present place.

    Raises:
        OtherWarehouseError: nothing is published, the warehouse is gone, and there was one.
        WarehouseError: nothing is published, or a file is damaged.
    """
    import duckdb

    folder, database = project.published, project.published_database
    moved = has_rows(folder) and not show(folder)
    if not moved and not database.is_file():
        _report_nothing(project)
    try:
        place = ":memory:" if moved else str(database)
        with duckdb.connect(place, read_only=not moved, config=CONFINED) as con:
            con.execute("SET TimeZone = 'UTC'")
            if moved:
                con.execute("\n".join(statements(con, folder)))
            # The folder as it is, and as the patterns of the views escape it.
            confine(con, folders={str(folder), glob.escape(str(folder))})
            yield con
    except duckdb.Error as error:
        raise WarehouseError(
            f"The published files in {folder} cannot be read: {first(error)} Run `pip-dagster publish` "
            "to write them again from the warehouse."
        ) from error


def _report_nothing(project: Project) -> NoReturn:
    """Report why there is nothing to read.

    Raises:
        OtherWarehouseError: the warehouse is gone too, and stamps in the registry show that there was one.
        WarehouseError: nothing was published, or what was is gone.
    """
    import duckdb

    stored = isinstance(project.warehouse, Path) and project.warehouse.is_file()
    if isinstance(project.warehouse, Path) and not stored:
        with duckdb.connect(config=CONFINED) as con:
            stamp.check_new(con, project, stamp.stamps_of(project))
    also = " `pip-dagster publish` publishes the stored partitions." if stored else ""
    raise WarehouseError(
        f"Nothing is published yet: there is no {project.published_database}. Materialize a partition in the UI, "
        f"or run `pip-dagster backfill PIPELINE --from KEY --to KEY`.{also}"
    )


def statements(con: DuckDBPyConnection, folder: Path) -> list[str]:
    """What creates the views of all tables that have rows in some file."""
    tables: dict[Table, set[str]] = {}
    for file in sorted(folder.glob("*/*.duckdb")):  # one after the other: there may be many
        with attached_tables(con, [file]) as found:
            _, structs = columns_of(con, ATTACHED.format(0))
            for table in found:
                tables.setdefault(table, set()).update(structs.get(table, ()))
    order = [kind.view or kind.name for kind in kinds.published()]
    listed = sorted(tables, key=lambda table: (order.index(table[1]) if table[1] in order else len(order), table))
    schemas = [f"CREATE SCHEMA IF NOT EXISTS {quote(name)};" for name in sorted({schema for schema, _ in tables})]
    return [*schemas, *(_view(folder, table, tables[table]) for table in listed)]


def altered_views(con: DuckDBPyConnection, folder: Path) -> str | None:
    """How the database of views differs from the views of what is in this folder; None where it is of another place."""
    import duckdb

    try:
        heading = (folder / "views.sql").read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        heading = ""
    if not has_rows(folder) or (heading.startswith("-- ") and heading != _heading(folder)):
        return None
    database = folder.with_suffix(".duckdb")
    if not database.is_file():
        return "is gone"
    try:
        with duckdb.connect(str(database), read_only=True) as other:
            present = {(schema, name): sql for schema, name, sql in other.execute(_RELATIONS).fetchall()}
        with duckdb.connect(config=CONFINED) as own:
            own.execute("\n".join(statements(con, folder)))
            listed = {(schema, name) for schema, name, _ in own.execute(_RELATIONS).fetchall()}
            for table in present.keys() - listed:  # one whose rows are gone stays, without rows
                own.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(table[0])}; {_view(folder, table, ())}")
            expected = {(schema, name): sql for schema, name, sql in own.execute(_RELATIONS).fetchall()}
            wrong = [table for table in sorted(expected) if not _alike(own, present.get(table), expected[table])]
    except duckdb.Error as error:
        return f"cannot be read: {first(error)}"
    return f"the view {'.'.join(wrong[0])} is not as it was written" if wrong else None


# Views, and tables, of which there should be none.
_RELATIONS = """
  SELECT schema_name, view_name, sql FROM duckdb_views() WHERE NOT internal
  UNION ALL SELECT schema_name, table_name, sql FROM duckdb_tables()
"""


def _heading(folder: Path) -> str:
    return f"-- {str(folder)!r}"


def _view(folder: Path, table: Table, structs: Iterable[str]) -> str:
    schema, name = table
    # The ledger's tables are in the files of every pipeline. Brackets and stars in the project's path are escaped.
    pattern = f"{glob.escape(str(folder))}/{'*' if schema == kinds.LEDGER else glob.escape(schema)}/*.duckdb"
    rows = in_files(literal(pattern), schema, name)
    return f"CREATE VIEW {quote(schema)}.{quote(name)} AS SELECT {as_read(structs)} FROM {rows};"


def _replace(con: DuckDBPyConnection, folder: Path, script: list[str]) -> None:
    database, marker = folder.with_suffix(".duckdb"), folder / "views.sql"
    for left in database.parent.glob(f".{glob.escape(database.name)}.*.tmp*"):  # by a killed process
        left.unlink(missing_ok=True)
    temporary = database.with_name(f".{database.name}.{secrets.token_hex(4)}.tmp")
    con.execute(f"ATTACH {literal(str(temporary))} AS published (TYPE duckdb, STORAGE_VERSION 'v1.5.0')")
    try:
        with con.cursor() as own:  # with a default catalog of its own
            own.execute("USE published")
            own.execute("\n".join(script))
    finally:
        con.execute("DETACH published")
    temporary.replace(database)  # a reader that has the old one open keeps reading, through the views it has
    sync(database.parent)  # before the marker, which would vouch for an older one after a loss of power
    marker.write_text("\n".join(script), encoding="utf-8")


def parquet_folders(folder: Path) -> list[Path]:
    """The folders of Parquet files, one for each partition, that earlier versions published."""
    return sorted({file.parent for file in folder.glob("*/*/*.parquet")})


def _alike(con: DuckDBPyConnection, sql: str | None, expected: str) -> bool:
    return sql == expected or (sql is not None and parsed(con, sql) == parsed(con, expected))
