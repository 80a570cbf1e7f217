"""A SELECT of a person on what is published, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from pip_dagster.cli.output import progress
from pip_dagster.cli.published import open_published
from pip_dagster.cli.query_output import Result
from pip_dagster.declaration.project import Project
from pip_dagster.ledger.purged import purged_of
from pip_dagster.sql.expression import Refused
from pip_dagster.sql.tables import Readable, folded, tables_read
from pip_dagster.warehouse import remote

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_CATALOG_FUNCTIONS = frozenset(
    {"duckdb_columns", "duckdb_constraints", "duckdb_functions", "duckdb_schemas", "duckdb_tables", "duckdb_types"}
)
_CATALOG_VIEWS = frozenset(f"main.{name}" for name in _CATALOG_FUNCTIONS - {"duckdb_functions"}) | frozenset(
    f"information_schema.{name}"
    for name in ("columns", "key_column_usage", "referential_constraints", "schemata", "table_constraints", "tables")
)


@contextmanager
def run_query(project: Project, sql: str) -> Iterator[Result]:
    """The rows of a SELECT on what is published; nothing else is run.

    Raises:
        click.ClickException: it is not one, or fails; says why.
    """
    import duckdb

    with open_published(project) as con:
        try:
            read = tables_read(sql, _readable(con))
        except Refused as error:
            raise click.ClickException(
                f"A query reads the project's tables and writes nothing; this {error}."
            ) from error
        _say_purged(con, sql, {name.partition(".")[0] for name in read})
        try:
            result = con.execute(sql)
            columns = [column[0] for column in result.description or []]
            if len(set(columns)) < len(columns):
                raise click.ClickException(f"Two columns have the same name: {', '.join(columns)}. Rename one with AS.")
            yield result
        except duckdb.Error as error:
            of_file = project.publishes and str(project.published) in str(error)
            # A damaged file or an S3 that is away is not the query's fault; Ctrl-C is no fault at all.
            if of_file or remote.is_of_server(error) or "Query interrupted" in str(error):
                raise
            raise click.ClickException(str(error)) from error
        except BaseException:  # Ctrl-C: DuckDB's other threads would go on with the query, and closing waits for them
            con.interrupt()
            raise


def _readable(con: DuckDBPyConnection) -> Readable:
    """The tables and views of the project, and DuckDB's own list of them; nothing that shows a path or a secret."""
    rows = con.execute(
        "SELECT current_database() AS catalog, schema_name || '.' || table_name FROM duckdb_tables() "
        "WHERE database_name = current_database() "
        "UNION ALL SELECT current_database(), schema_name || '.' || view_name FROM duckdb_views() "
        "WHERE database_name = current_database() AND NOT internal"
    ).fetchall()
    return Readable(
        frozenset({folded(name) for _, name in rows} | _CATALOG_VIEWS),
        kind="a table or view of this project",
        table_remedy="correct the name",
        function_remedy="open the published database in DuckDB itself to combine it with other data",
        catalogs=frozenset(folded(catalog) for catalog, _ in rows[:1]),
        functions=_CATALOG_FUNCTIONS,
        shows=True,
    )


def _say_purged(con: DuckDBPyConnection, sql: str, schemas: set[str]) -> None:
    """Say of each partition that a query names as text, of a pipeline that it reads, that its contents were purged."""
    if "'" not in sql:  # it names none, and the ledger need not be read
        return
    for pipeline in sorted(schemas - {"ledger", "main", "information_schema"}):
        for purged in purged_of(con, pipeline):
            if named := tuple(key for key in purged.keys if f"'{key}'" in sql):
                progress(f"{pipeline}, {replace(purged, keys=named).text}.")
