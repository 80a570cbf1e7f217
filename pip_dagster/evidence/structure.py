"""What the warehouse is made of: tables, columns, views and functions that are not as pip_dagster created them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pip_dagster.ledger.fault import Fault
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse import kinds, schema
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.tables import refresh_views
from pip_dagster.warehouse.view_sql import parsed

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_RESTORE = "Restore the newest backup of the warehouse."

# A table function of the warehouse could have the name of DuckDB's own.
_HERE = "database_name = current_database()"
_COLUMNS = f"""
  SELECT schema_name, table_name, column_name, data_type FROM system.main.duckdb_columns()
  WHERE {_HERE} AND (schema_name, table_name) IN
    (SELECT (schema_name, table_name) FROM system.main.duckdb_tables() WHERE {_HERE})
  ORDER BY table_name, column_index
"""
_VIEWS = f"SELECT schema_name, view_name, sql FROM system.main.duckdb_views() WHERE {_HERE} AND NOT internal"
_FUNCTIONS = f"SELECT schema_name, function_name FROM system.main.duckdb_functions() WHERE {_HERE} ORDER BY ALL"

Table = tuple[str, str]  # schema and name


@contextmanager
def as_created() -> Iterator[DuckDBPyConnection]:
    """A ledger as the migrations create it, in memory, with which both functions below compare."""
    with workspace(threads=1) as own:
        schema.ensure(own, "memory", read_only=False, new=lambda: None)
        yield own


def structure_faults(con: DuckDBPyConnection, own: DuckDBPyConnection) -> list[Fault]:
    """Tables of the ledger that are not as created, and functions, which pip_dagster creates none of.

    Nothing else of the warehouse can be read reliably while there are any. The warehouse is the current catalog.
    """
    faults = [
        f"the function {space}.{name} is not pip_dagster's, and may hide one of DuckDB's own. Drop it"
        for space, name in con.execute(_FUNCTIONS).fetchall()
    ]
    if faults:  # what is asked next could run it
        return [Fault(None, "ledger", text) for text in faults]
    expected, found = (_columns(each, kinds.LEDGER) for each in (own, con))
    for table in sorted(expected.keys() - found.keys()):
        faults.append(f"the table {_dotted(table)} is gone: it was dropped, or replaced by a view. {_RESTORE}")
    for table in sorted(found.keys() - expected.keys()):
        faults.append(f"the table {_dotted(table)} is not one of pip_dagster's. Drop it")
    for table in sorted(expected.keys() & found.keys()):
        then, now = expected[table], found[table]
        for name in sorted(then.keys() | now.keys()):
            where = f"{_dotted(table)}: the column {name}"
            if name not in now:
                faults.append(f"{where} is gone. {_RESTORE}")
            elif name not in then:
                faults.append(f"{where} is not one of pip_dagster's. Drop it")
            elif then[name] != now[name]:
                faults.append(f"{where} is {now[name]}; it was created as {then[name]}. {_RESTORE}")
    return [Fault(None, "ledger", text) for text in faults]


def view_faults(con: DuckDBPyConnection, own: DuckDBPyConnection) -> Iterator[Fault]:
    """The views that are not as pip_dagster creates them: they show other rows than the tables hold.

    The warehouse is the current catalog, and `structure_faults` found nothing.
    """
    present = _views(con)
    splits = "SELECT DISTINCT pipeline, salt, unit FROM ledger.arms ORDER BY ALL"
    for split in con.execute(splits).fetchall():
        values = ", ".join("NULL" if each is None else literal(each) for each in split)
        own.execute(f"INSERT INTO ledger.arms (pipeline, salt, unit) VALUES ({values})")
    for pipeline in _pipelines(con):
        _create_alike(con, own, pipeline)
    for view, sql in sorted(_views(own).items()):
        if view not in present:
            yield Fault(None, "ledger", f"the view {_dotted(view)} is gone. `pip-dagster publish` does not need it")
        elif present[view] != sql and parsed(own, present[view]) != parsed(own, sql):
            yield Fault(None, "ledger", f"the view {_dotted(view)} is not as pip_dagster created it")


def _create_alike(con: DuckDBPyConnection, own: DuckDBPyConnection, pipeline: str) -> None:
    """Create the tables of a pipeline without rows, in the order in which its views name them, and its views.

    The order in which they were created is not known: DuckDB numbers them again whenever it opens the file.
    """
    select = f"SELECT table_name FROM duckdb_tables() WHERE {_HERE} AND schema_name = {literal(pipeline)}"
    of_tables = _columns(con, pipeline)
    views = " ".join(sql for (space, _), sql in sorted(_views(con).items()) if space == pipeline)
    tables = [name for (name,) in con.execute(f"{select} ORDER BY table_oid").fetchall()]
    tables.sort(key=lambda name: views.find(name) % (len(views) + 1))  # not named: the last
    own.execute(f"CREATE SCHEMA {quote(pipeline)}")
    for name in tables:
        body = ", ".join(f"{quote(column)} {of}" for column, of in of_tables[pipeline, name].items())
        own.execute(f"CREATE TABLE {quote(pipeline)}.{quote(name)} ({body})")
    refresh_views(own, pipeline)


def _pipelines(con: DuckDBPyConnection) -> list[str]:
    """The pipelines that have tables."""
    listed = "SELECT pipeline FROM ledger.scorings UNION SELECT pipeline FROM ledger.extractions"
    select = f"SELECT DISTINCT schema_name FROM duckdb_tables() WHERE {_HERE} AND schema_name IN ({listed}) ORDER BY 1"
    return [name for (name,) in con.execute(select).fetchall()]


def _columns(con: DuckDBPyConnection, of: str) -> dict[Table, dict[str, str]]:
    """Table of a schema → its columns with their types."""
    found: dict[Table, dict[str, str]] = {}
    for space, table, column, sql_type in con.execute(_COLUMNS).fetchall():
        if space == of:
            found.setdefault((space, table), {})[column] = sql_type
    return found


def _views(con: DuckDBPyConnection) -> dict[Table, str]:
    return {(space, name): sql for space, name, sql in con.execute(_VIEWS).fetchall()}


def _dotted(table: Table) -> str:
    return ".".join(table)
