"""`pip-dagster query`: SQL over the published tables."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pip_dagster.cli.group import Choice
from pip_dagster.cli.output import progress
from pip_dagster.cli.query_output import FORMATS, check_target, show_rows, write_rows
from pip_dagster.cli.query_run import run_query
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError
from pip_dagster.text_file import read_text


@click.command()
@click.argument("sql", required=False)
@click.option("-f", "--file", "sql_file", type=click.Path(path_type=Path), help="Read the SQL from a file; - is stdin.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the rows to a file.")
@click.option("--force", is_flag=True, help="Replace the file of --output if there is one.")
@click.option(
    "--format",
    "form",
    type=Choice(list(FORMATS)),
    help="Output format; by default that of the file's name, or a table. parquet needs --output.",
)
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
@click.pass_obj
def query(
    project: Project,
    sql: str | None,
    sql_file: Path | None,
    output: Path | None,
    force: bool,
    form: str | None,
    as_json: bool,
) -> None:
    """Run a SELECT on the published tables: as an argument, from a file, or from stdin (-).

    Without SQL, on a terminal, a shell opens: .help lists its commands.
    """
    form = "json" if as_json else form
    if sql is not None and sql_file is not None:
        raise click.UsageError("Give the SQL as an argument or by --file; use only one of them.")
    if output is not None:
        form = form or _format_of(output)
        check_target(output, force=force)
    elif form == "parquet":
        raise click.UsageError("--format parquet needs a file: add -o FILE.parquet.")
    if sql is None and sql_file is None and output is None and form is None and _at_terminal():
        from pip_dagster.cli.query_shell import QueryShell

        QueryShell(project).run()
        return
    text = _sql(sql, sql_file)
    with run_query(project, text) as result:
        if output is None:
            show_rows(result, form or "table")
        else:
            size = write_rows(result, text, form or "table", output, force=force)
            progress(f"{output}: {size:,} bytes.")


def _at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _format_of(output: Path) -> str:
    found = [form for form, suffix in FORMATS.items() if suffix and output.suffix.lower() == suffix]
    if not found:
        known = ", ".join(suffix for suffix in FORMATS.values() if suffix)
        raise click.UsageError(f"{output.name} does not name a format; end it with {known}, or add --format.")
    return found[0]


def _sql(sql: str | None, sql_file: Path | None) -> str:
    """The statement, from where it is."""
    if sql_file is not None and str(sql_file) != "-":
        return read_text(sql_file, DeclarationError)
    if sql is not None and sql != "-":
        return sql
    if sql is None and sql_file is None and sys.stdin.isatty():
        raise click.UsageError("Give a SELECT as an argument, with -f FILE, or on stdin.")
    text = sys.stdin.read()
    if sql is None and sql_file is None and not text.strip():
        raise click.UsageError("Give a SELECT as an argument, with -f FILE, or on stdin.")
    return text
