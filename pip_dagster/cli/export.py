"""`pip-dagster export`: what is published, as Parquet files for pandas, Polars and Spark."""

from __future__ import annotations

from pathlib import Path

import click

from pip_dagster.cli.options import KeyRange
from pip_dagster.cli.output import echo
from pip_dagster.declaration.project import Project
from pip_dagster.plural import plural


@click.command()
@click.argument("pipeline")
@click.option(
    "--to", "folder", type=click.Path(path_type=Path), required=True, help="A folder that does not exist yet."
)
@click.option("--partitions", type=KeyRange(), help="First and last key; by default all.")
@click.pass_obj
def export(project: Project, pipeline: str, folder: Path, partitions: tuple[str, str] | None) -> None:
    """Write the published rows of PIPELINE to Parquet files in a new folder, one for each table, as of one moment.

    The folder appears when it is complete. Types that Parquet does not have, such as HUGEINT and INTERVAL, become text.
    """
    import duckdb

    from pip_dagster.cli.published import check_pipeline, open_published
    from pip_dagster.flow.engine import available_threads
    from pip_dagster.warehouse.access import reading
    from pip_dagster.warehouse.connect import workspace
    from pip_dagster.warehouse.faults import remedy
    from pip_dagster.warehouse.published_export import of_files, of_lake, write

    if folder.exists():
        raise click.ClickException(f"{folder} exists. Name a folder that does not: an export never changes one.")
    with open_published(project) as con:
        check_pipeline(con, pipeline)
    try:
        with workspace(threads=available_threads()) as con:
            if project.publishes:
                with of_files(con, project.published / pipeline) as tables:
                    found = write(con, tables, folder, partitions)
            else:
                with reading(con, project, purpose="exporting"):
                    found = write(con, of_lake(con, pipeline), folder, partitions)
    except (duckdb.Error, OSError) as error:
        text = f"{folder} cannot be written; nothing is left of it: {error}. {remedy(str(error))}"
        raise click.ClickException(text) from error
    listed = ", ".join(f"{name} ({plural(rows, 'row')})" for name, rows in found.items())
    echo(f"{folder}: {listed}.")
