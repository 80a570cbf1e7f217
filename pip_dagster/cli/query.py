"""`pip-dagster query`: SQL over the published tables."""

from __future__ import annotations

import csv
import re
import sys
from contextlib import suppress
from typing import Any

import click

from pip_dagster.cli.output import echo, show_json, show_table
from pip_dagster.cli.published import open_published
from pip_dagster.declaration.project import Project

_SHOWN = 200


@click.command()
@click.argument("sql")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="Output format.",
)
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
@click.pass_obj
def query(project: Project, sql: str, form: str, as_json: bool) -> None:
    """Run a SELECT on the published database, for example 'SELECT * FROM flight_delay.predictions LIMIT 5'."""
    import duckdb

    with open_published(project) as con:
        try:
            statements = con.extract_statements(sql)
            if len(statements) != 1 or "SELECT" not in str(statements[0].type):
                raise click.ClickException("The published database is read-only; expected one SELECT statement.")
            result = con.execute(statements[0])
            columns = [column[0] for column in result.description or []]
            if len(set(columns)) < len(columns):
                raise click.ClickException(f"Two columns have the same name: {', '.join(columns)}. Rename one with AS.")
            _show(result, columns, "json" if as_json else form)
        except duckdb.Error as error:
            if _is_about_files(con, project, str(error)):
                raise
            listed = ""
            with suppress(duckdb.Error):  # in a lake's transaction, which this error has ended
                listed = f"\nTables: {', '.join(_tables(con))}"
            raise click.ClickException(f"{error}{listed}") from error


def _is_about_files(con: Any, project: Project, error: str) -> bool:
    """Whether the error is about a published file, or about files of the views that are not where they were."""
    if not project.publishes:
        return False
    if f"'{project.published}" in error or f'"{project.published}' in error:
        return True
    refused = re.search(r'Cannot access file "([^"]+)"', error)
    if refused is None:
        return False
    views = con.execute("SELECT sql FROM duckdb_views() WHERE NOT internal").fetchall()
    return any(refused[1] in view for (view,) in views)


def _show(result: Any, columns: list[str], form: str) -> None:
    if form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        while rows := result.fetchmany(10_000):
            writer.writerows(rows)
    elif form == "json":
        show_json([dict(zip(columns, row, strict=True)) for row in result.fetchall()])
    else:
        rows = result.fetchmany(_SHOWN)
        show_table(None, columns, rows)
        if result.fetchone():
            echo(f"More than {_SHOWN} rows: add a LIMIT, or print all of them with --format csv.", err=True)


def _tables(con: Any) -> list[str]:
    rows = con.execute(
        "SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE NOT internal "
        "AND database_name = current_database() ORDER BY ALL"
    ).fetchall()
    return [row[0] for row in rows]
